"""What changes in member, one verb a file."""
