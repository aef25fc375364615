"""State-changing verbs of payment, one a file."""
