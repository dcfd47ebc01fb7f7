"""Probes: ask a server whether it is ready, in attempts with a time limit."""

import asyncio
import logging
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from walletctl.stack.errors import RefusedError

ATTEMPT_SECONDS = 2.0
PAUSE_SECONDS = 0.05
SHOWN_CHARACTERS = 300

# Wrong user or password, refused by pg_hba.conf; missing database.
_REFUSALS = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)

# Services speak plain HTTP. Loading certificates takes ten times as long as the rest of a probe.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_librdkafka = logging.getLogger("walletctl.stack.librdkafka")
_librdkafka.addHandler(logging.NullHandler())
# A broker that isn't up yet is expected here, so its errors are not logged.
_librdkafka.propagate = False


class Probe(ABC):
    """Asks a server whether it is ready."""

    @abstractmethod
    async def problem(self) -> str | None:
        """Return why the server isn't ready, or None if it is; takes a few seconds at most.

        Raises:
            RefusedError: the server answers and refuses: waiting doesn't help.
        """

    async def ready(self) -> bool:
        """Return whether the server is ready; False if it refuses or is away."""
        try:
            return await self.problem() is None
        except RefusedError:
            return False


@dataclass(frozen=True)
class PostgresProbe(Probe):
    """Ready if PostgreSQL answers `SELECT 1`."""

    url: str

    async def problem(self) -> str | None:
        """Connect and ask."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                # Given here, so that PGSSLMODE, PGPASSWORD and other variables don't apply.
                password = urlsplit(self.url).password or ""
                connection = await asyncpg.connect(self.url, ssl=False, target_session_attrs="any", password=password)
                try:
                    await connection.execute("SELECT 1")
                finally:
                    await connection.close()
        except _REFUSALS as error:
            raise RefusedError(str(error)) from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return str(error) or type(error).__name__
        return None


@dataclass(frozen=True)
class KafkaProbe(Probe):
    """Ready if the port accepts a connection and the metadata name a broker."""

    host: str
    port: int

    async def problem(self) -> str | None:
        """Connect, then ask for the metadata."""
        if not await _accepts(self.host, self.port):
            return f"nothing listens on {self.host}:{self.port}"
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> str | None:
        client = AdminClient({"bootstrap.servers": f"{self.host}:{self.port}"}, logger=_librdkafka)
        try:
            metadata = client.list_topics(timeout=ATTEMPT_SECONDS)
        except KafkaException as error:
            return str(error)
        return None if metadata.brokers else "the metadata name no broker"


@dataclass(frozen=True)
class HttpProbe(Probe):
    """Ready if GET on the URL answers 200."""

    url: str

    async def problem(self) -> str | None:
        """Send the request."""
        # Imported late, because it is an extra that only the stack needs.
        import httpx

        try:
            async with httpx.AsyncClient(timeout=ATTEMPT_SECONDS, trust_env=False, verify=_NO_CERTIFICATES) as client:
                reply = await client.get(self.url)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        answer = f"{self.url} answers {reply.status_code} {reply.text[:SHOWN_CHARACTERS]}"
        return None if reply.status_code == httpx.codes.OK else answer


def probe_of(url: str) -> Probe:
    """Return the probe of a `url`: a service's root, a database, or a broker's host and port."""
    if url.startswith("http"):
        return HttpProbe(f"{url}/ready")
    if url.startswith("postgresql"):
        return PostgresProbe(url)
    host, _, port = url.rpartition(":")
    return KafkaProbe(host, int(port))


async def until_ready(probe: Probe, note: Callable[[str], None]) -> None:
    """Ask repeatedly until the server is ready; the caller sets a deadline.

    Args:
        probe: asks the server.
        note: called after each attempt with the reason why the server isn't ready.

    Raises:
        RefusedError: see `Probe.problem`.
    """
    while (problem := await probe.problem()) is not None:
        note(problem)
        await asyncio.sleep(PAUSE_SECONDS)


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
