"""Group commit: which commands share a transaction, and what happens when one fails."""
