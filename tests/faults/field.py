"""What a fault is, and what it works on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from faults.cluster import Cluster
from faults.driver import Driver


@dataclass(frozen=True)
class Fault:
    """One fault of a schedule.

    Attributes:
        name: of `PROCESS_FAULTS` or `SERVER_FAULTS`.
        seconds: how long it lasts, if it lasts.
        pause_seconds: the pause before it.
        choice: the seed of its random choices.
    """

    name: str
    seconds: float
    pause_seconds: float
    choice: int

    def __str__(self) -> str:
        return f"{self.pause_seconds:.1f}s later {self.name} for {self.seconds:.1f}s ({self.choice})"


@dataclass
class Field:
    """The cluster and its clients, and what the faults did to them, for the checkers."""

    cluster: Cluster
    driver: Driver
    poisoned: list[UUID] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    repaired: bool = False
    """Whether an operator has replayed events or rebuilt the history."""
    drained_seconds: float = 0.0


Act = Callable[[Field, Fault], Awaitable[None]]


@asynccontextmanager
async def session(on: Field) -> AsyncIterator[asyncpg.Connection]:
    """Open a session past the proxy."""
    async with administration(on.cluster) as connection:
        yield connection


@asynccontextmanager
async def administration(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """Open a superuser's session past the proxy, which may write even if the server is read-only."""
    connection = await asyncpg.connect(cluster.database_url, server_settings={"default_transaction_read_only": "off"})
    try:
        yield connection
    finally:
        await connection.close()
