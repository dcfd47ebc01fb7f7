"""A database that refuses: it is read-only, or it rejects the processes' login."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from faults.cluster import ROLES, Cluster
from faults.field import Act, Fault, Field, administration
from walletctl.stack.readiness import HttpProbe
from walletctl.stack.specs import DATABASE_ROLES

TOLD_SECONDS_MAX: Final = 25.0
"""A relay whose connections a firewall has just forgotten learns of nothing for 15 seconds."""
HEALED_SECONDS_MAX: Final = 30.0

_WRITERS: Final = ("wallet-api", "outbox-relay", "history-consumer")
_ALL: Final = (*_WRITERS, "history-api")
_RELOAD: Final = "SELECT pg_reload_conf()"
_END_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> ''"

_READ_ONLY: Final = (
    # Existing sessions see both changes, a moment after the reload.
    (
        ("ALTER SYSTEM SET default_transaction_read_only = on", _RELOAD),
        ("ALTER SYSTEM RESET default_transaction_read_only", _RELOAD),
    ),
    # Only new sessions see it, and they stay read-only after it has ended.
    (
        ("ALTER DATABASE wallet SET default_transaction_read_only = on", _END_SESSIONS),
        ("ALTER DATABASE wallet RESET default_transaction_read_only",),
    ),
)

_NAMES: Final = [ROLES.names[role] for role in DATABASE_ROLES.values()]
_LOCKED_OUT: Final = (
    (
        (*(f"ALTER ROLE {name} PASSWORD 'rotated'" for name in _NAMES), _END_SESSIONS),
        tuple(f"ALTER ROLE {name} PASSWORD '{ROLES.password}'" for name in _NAMES),
    ),
    (
        (*(f"ALTER ROLE {name} NOLOGIN" for name in _NAMES), _END_SESSIONS),
        tuple(f"ALTER ROLE {name} LOGIN" for name in _NAMES),
    ),
    (
        (f"REVOKE CONNECT ON DATABASE wallet FROM {', '.join(_NAMES)}", _END_SESSIONS),
        (f"GRANT CONNECT ON DATABASE wallet TO {', '.join(_NAMES)}",),
    ),
)


async def _only_read(on: Field, fault: Fault) -> None:
    """A primary that is read-only for a while, as after a demotion."""
    begin, end = _READ_ONLY[fault.choice % len(_READ_ONLY)]
    async with _changed(on.cluster, begin, end):
        await _until_told(on, begin[0], _WRITERS)
        await asyncio.sleep(fault.seconds)


async def _lock_out(on: Field, fault: Fault) -> None:
    """A password that was rotated, a role without LOGIN, or a role without CONNECT."""
    begin, end = _LOCKED_OUT[fault.choice % len(_LOCKED_OUT)]
    async with _changed(on.cluster, begin, end):
        await _until_told(on, begin[0], _ALL)
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def _changed(cluster: Cluster, begin: Collection[str], end: Collection[str]) -> AsyncIterator[None]:
    """Run statements before the block, and those that undo them after it, even if the block fails."""
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
    """Wait until each process reports that it is not ready. A process that does not, breaks a promise."""

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
