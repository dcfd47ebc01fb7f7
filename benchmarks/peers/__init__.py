"""What this system is measured against."""
