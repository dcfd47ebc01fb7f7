"""Looking transactions up: by id, reference, external id, idempotency key or wallet."""
