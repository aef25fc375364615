"""Addresses, webhooks and deliveries in PostgreSQL; what is hot takes a batch."""
