"""Payments without the world: states, plans, postings and the arithmetic of refunds."""
