"""The peers with which this system is compared."""
