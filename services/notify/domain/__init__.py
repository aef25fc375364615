"""The rules of webhooks, without clock, sockets or rows."""
