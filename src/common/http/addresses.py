"""The addresses of clients."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from starlette.types import Scope

_IPV6_NETWORK_BITS: Final = 64


def client_address(scope: Scope) -> str:
    """Return the address by which a client is limited: that of IPv4, or the /64 network of IPv6.

    A client with an IPv6 network may use any address in it. All addresses that are none, which only a trusted proxy can
    send, are one.
    """
    client = scope.get("client")
    return _limited_address(client[0]) if client else ""


@lru_cache(maxsize=4096)
def _limited_address(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return text
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), _IPV6_NETWORK_BITS), strict=False))
