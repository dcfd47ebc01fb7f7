"""Loopback addresses: those of this machine alone."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own, which no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
