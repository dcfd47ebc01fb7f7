"""A wallet's past: its balance at a time or a version, and statements of a period."""
