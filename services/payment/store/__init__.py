"""Payments, refunds and exceptions in PostgreSQL."""
