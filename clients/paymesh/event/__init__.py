"""The envelope in which events travel."""
