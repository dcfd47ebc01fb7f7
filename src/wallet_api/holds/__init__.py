"""Holds over HTTP, and the release of overdue ones."""
