"""Idempotency keys: one request, one effect, one reply."""
