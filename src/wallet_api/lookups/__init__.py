"""Looking transactions up: by id, reference, idempotency key or wallet."""
