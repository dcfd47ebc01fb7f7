"""Batch requests: up to 100 operations in one request."""
