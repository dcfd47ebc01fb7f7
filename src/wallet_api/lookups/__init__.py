"""Looking transactions up: by id, reference, external id, idempotency key, batch request, wallet or metadata."""
