"""Chooses the ports of a stack: those of its last run, else the usual ones, else any free ones."""

import random
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from walletctl.stack.errors import SetupError

HOST = "127.0.0.1"

USUAL_PORTS = {
    "postgres": 5432,
    "kafka": 9092,
    "kafka-controller": 9093,
    "wallet-api": 8000,
    "history-api": 8001,
}

# Below Linux's ephemeral ports: a client may be given one of those while the server restarts.
FREE_PORTS = range(20_000, 30_000)
TRIES_MAX = 200


class PortReservations:
    """The ports of one stack, reserved against other stacks on this machine until `close`.

    A port is reserved by binding an abstract Unix socket named after it (unix(7), Linux), which ends with the process.
    So no other stack chooses that port, neither at the same time nor while its server restarts.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def choose(self, names: Iterable[str], last_time: Mapping[str, int]) -> dict[str, int]:
        """Return a port for each name.

        Args:
            names: keys of `USUAL_PORTS`, or other names, which get any free port.
            last_time: the ports of the last run, by name.

        Raises:
            SetupError: there is no free port.
        """
        return {name: self._choose(name, last_time.get(name)) for name in names}

    def close(self) -> None:
        """End the reservations."""
        for held in self._held:
            held.close()
        self._held.clear()

    def _choose(self, name: str, last_time: int | None) -> int:
        for port in _candidates(name, last_time):
            if is_free(port) and self._reserve(port):
                return port
        raise SetupError(f"no free port was found for {name}: end servers on 127.0.0.1")

    def _reserve(self, port: int) -> bool:
        if sys.platform != "linux":
            return True
        held = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            held.bind(f"\0walletctl-port-{port}")
            self._held.append(held)
            return True
        held.close()
        return False


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket() as probe:
        # Servers set it too: connections in TIME_WAIT don't block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _candidates(name: str, last_time: int | None) -> Iterator[int]:
    if last_time is not None:
        yield last_time
    if name in USUAL_PORTS:
        yield USUAL_PORTS[name]
    yield from random.sample(FREE_PORTS, TRIES_MAX)
