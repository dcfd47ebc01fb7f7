"""What one transaction does for a batch of commands, and its SQL."""
