"""How the stack knows that a server answers: one bounded attempt, asked again until it does."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

import asyncpg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tenacity import AsyncRetrying, retry_if_result, wait_fixed

ATTEMPT_SECONDS = 2.0
PAUSE_SECONDS = 0.05

_librdkafka = logging.getLogger("walletctl.stack.librdkafka")
_librdkafka.addHandler(logging.NullHandler())
# A broker that isn't up yet is what the probe is for, not news.
_librdkafka.propagate = False


class Probe(Protocol):
    """Asks a server once whether it is ready."""

    async def ready(self) -> bool:
        """Return whether it is; takes at most a few seconds and raises nothing for a server that is away."""


@dataclass(frozen=True)
class PostgresProbe:
    """Ready when `SELECT 1` is answered."""

    url: str

    async def ready(self) -> bool:
        """Connect and ask."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                connection = await asyncpg.connect(self.url)
                try:
                    await connection.execute("SELECT 1")
                finally:
                    await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True


@dataclass(frozen=True)
class KafkaProbe:
    """Ready when the port answers and the metadata names a broker."""

    host: str
    port: int

    async def ready(self) -> bool:
        """Connect, then ask for the metadata."""
        if not await _accepts(self.host, self.port):
            return False
        return await asyncio.to_thread(self._has_broker)

    def _has_broker(self) -> bool:
        client = AdminClient({"bootstrap.servers": f"{self.host}:{self.port}"}, logger=_librdkafka)
        try:
            metadata = client.list_topics(timeout=ATTEMPT_SECONDS)
        except KafkaException:
            return False
        return bool(metadata.brokers)


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET on the URL answers 200."""

    url: str

    async def ready(self) -> bool:
        """Send the request."""
        # Imported late because it's an extra, and only the stack needs it.
        import httpx

        try:
            async with httpx.AsyncClient(timeout=ATTEMPT_SECONDS, trust_env=False) as client:
                return (await client.get(self.url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def probe_of(url: str) -> Probe:
    """Return what asks the process that answers at `url`: a service's root, a database, or a broker's host and port."""
    if url.startswith("http"):
        return HttpProbe(f"{url}/ready")
    if url.startswith("postgresql"):
        return PostgresProbe(url)
    host, _, port = url.rpartition(":")
    return KafkaProbe(host, int(port))


async def until_ready(probe: Probe) -> None:
    """Ask again and again until the server is ready; the caller sets the deadline."""
    asking = AsyncRetrying(retry=retry_if_result(lambda ready: not ready), wait=wait_fixed(PAUSE_SECONDS))
    await asking(probe.ready)


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
