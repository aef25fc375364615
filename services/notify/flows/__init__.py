"""What notify does, a verb a file."""
