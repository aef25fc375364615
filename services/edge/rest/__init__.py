"""REST for merchants: routes and JSON from the contracts, signatures, idempotency, problems."""
