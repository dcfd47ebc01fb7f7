"""A wallet's limits over HTTP."""
