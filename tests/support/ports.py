"""TCP ports for servers that a test starts."""

import socket


def free_port() -> int:
    """Return a port of 127.0.0.1 that no server listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
