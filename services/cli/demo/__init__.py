"""The main job: a real shop's purchases, from signed REST calls to balanced books."""
