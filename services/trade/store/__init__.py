"""Orders and refunds in PostgreSQL: every write takes a batch, with its history and its events."""
