"""Who calls an API, and what the caller may do."""
