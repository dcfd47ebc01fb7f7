"""A database that answers and says no: it only reads, or lets nobody in whom it knew."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from faults.cluster import PASSWORD, ROLE, Cluster
from faults.field import Act, Fault, Field, administration
from walletctl.stack.readiness import HttpProbe

TOLD_SECONDS_MAX: Final = 10.0
HEALED_SECONDS_MAX: Final = 30.0

_WRITERS: Final = ("wallet-api", "outbox-relay", "history-consumer")
_ALL: Final = (*_WRITERS, "history-api")
_RELOAD: Final = "SELECT pg_reload_conf()"
_END_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> ''"

_READ_ONLY: Final = (
    # Sessions that are there hear of it and of its end; a reload takes a moment.
    (
        ("ALTER SYSTEM SET default_transaction_read_only = on", _RELOAD),
        ("ALTER SYSTEM RESET default_transaction_read_only", _RELOAD),
    ),
    # Only new sessions hear of it, and they go on reading only when it has ended.
    (
        ("ALTER DATABASE wallet SET default_transaction_read_only = on", _END_SESSIONS),
        ("ALTER DATABASE wallet RESET default_transaction_read_only",),
    ),
)

_LOCKED_OUT: Final = (
    ((f"ALTER ROLE {ROLE} PASSWORD 'rotated'", _END_SESSIONS), (f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'",)),
    ((f"ALTER ROLE {ROLE} NOLOGIN", _END_SESSIONS), (f"ALTER ROLE {ROLE} LOGIN",)),
    (
        (f"REVOKE CONNECT ON DATABASE wallet FROM PUBLIC, {ROLE}", _END_SESSIONS),
        (f"GRANT CONNECT ON DATABASE wallet TO PUBLIC, {ROLE}",),
    ),
)


async def _only_read(on: Field, fault: Fault) -> None:
    """A primary that only reads for a while, as one that was demoted."""
    begin, end = _READ_ONLY[fault.choice % len(_READ_ONLY)]
    async with _changed(on.cluster, begin, end):
        await _until_told(on, begin[0], _WRITERS)
        await asyncio.sleep(fault.seconds)


async def _lock_out(on: Field, fault: Fault) -> None:
    """A password that was rotated, a role that may not log in, a database that it may not enter."""
    begin, end = _LOCKED_OUT[fault.choice % len(_LOCKED_OUT)]
    async with _changed(on.cluster, begin, end):
        await _until_told(on, begin[0], _ALL)
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def _changed(cluster: Cluster, begin: Collection[str], end: Collection[str]) -> AsyncIterator[None]:
    """Carry out statements, and those that put things right at the end, whatever happens."""
    try:
        await _carry_out(cluster, begin)
        yield
    finally:
        async with asyncio.timeout(HEALED_SECONDS_MAX):
            while not await _is_carried_out(cluster, end):
                await asyncio.sleep(0.1)


async def _carry_out(cluster: Cluster, statements: Collection[str]) -> None:
    async with administration(cluster) as connection:
        for statement in statements:
            await connection.execute(statement)


async def _is_carried_out(cluster: Cluster, statements: Collection[str]) -> bool:
    try:
        await _carry_out(cluster, statements)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def _until_told(on: Field, what: str, roles: Collection[str]) -> None:
    """Wait until `/ready` of each has said that it isn't ready; who doesn't say so breaks a promise."""

    async def told(role: str) -> None:
        url = f"{on.cluster.first(role).url}/ready"
        try:
            async with asyncio.timeout(TOLD_SECONDS_MAX):
                while await HttpProbe(url).ready():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            on.driver.violations.append(f"{role} was ready for {TOLD_SECONDS_MAX:.0f} s of: {what}")

    await asyncio.gather(*map(told, roles))


DATABASE_FAULTS: Final[dict[str, Act]] = {"only read": _only_read, "lock out": _lock_out}
