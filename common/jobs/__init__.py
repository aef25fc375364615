"""Delayed work: written with the change that asks for it, run at least once, seen when it fails."""
