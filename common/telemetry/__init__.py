"""OpenTelemetry: set-up, the story's id in baggage, and how context crosses processes."""
