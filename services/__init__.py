"""The services, one folder each, with the same rooms in every one; none imports another."""
