"""The SQL of limits: those of the wallets in a batch, and what the batch uses of them."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from common.postgres.raw_sql import RawStatement
from wallet_api.velocity_limits import VelocityLimit
from wallet_api.wallet import Wallet

_LIMIT: Final = (
    'id, direction, types, "window", amount_minor, count, since_version, since, window_start, used_minor, used_count'
)

# A row changes only with a version of its wallet. So what is read here, after the wallets, is of the version at which
# a wallet was read, or the wallet is lost when it is written.
READ_VELOCITY: Final = RawStatement(f"""
    SELECT {_LIMIT}, wallet_id FROM wallet.velocity_limits WHERE wallet_id = ANY(cast(:ids AS uuid[]))
    ORDER BY wallet_id, position
""")  # noqa: S608

WRITE_LIMITS: Final = RawStatement("""
    UPDATE wallet.wallets
    SET overdraft_limit_minor = limits.overdraft, balance_max_minor = limits.most, has_velocity_limits = limits.has
    FROM unnest(
        cast(:ids AS uuid[]), cast(:overdraft_limits AS bigint[]), cast(:maxima AS bigint[]),
        cast(:velocity AS boolean[])
    ) AS limits (id, overdraft, most, has)
    WHERE wallets.id = limits.id
""")

DELETE_VELOCITY: Final = RawStatement("DELETE FROM wallet.velocity_limits WHERE wallet_id = ANY(cast(:ids AS uuid[]))")

INSERT_VELOCITY: Final = RawStatement(f"""
    INSERT INTO wallet.velocity_limits (wallet_id, position, {_LIMIT})
    SELECT wallet_id, position, id, direction, string_to_array(types, ' '), "window", amount_minor, count,
        since_version, since, window_start, used_minor, used_count
    FROM unnest(
        cast(:wallet_ids AS uuid[]), cast(:positions AS smallint[]), cast(:ids AS text[]),
        cast(:directions AS text[]), cast(:types AS text[]), cast(:windows AS text[]), cast(:amounts AS bigint[]),
        cast(:counts AS integer[]), cast(:since_versions AS bigint[]), cast(:sinces AS timestamptz[]),
        cast(:window_starts AS timestamptz[]), cast(:used AS numeric[]), cast(:used_counts AS bigint[])
    ) AS row (
        wallet_id, position, id, direction, types, "window", amount_minor, count, since_version, since, window_start,
        used_minor, used_count
    )
""")  # noqa: S608

WRITE_USED: Final = RawStatement("""
    UPDATE wallet.velocity_limits AS limits
    SET window_start = row.window_start, used_minor = row.used_minor, used_count = row.used_count
    FROM unnest(
        cast(:wallet_ids AS uuid[]), cast(:ids AS text[]), cast(:window_starts AS timestamptz[]),
        cast(:used AS numeric[]), cast(:used_counts AS bigint[])
    ) AS row (wallet_id, id, window_start, used_minor, used_count)
    WHERE limits.wallet_id = row.wallet_id AND limits.id = row.id
""")


async def with_velocity(
    connection: asyncpg.Connection, wallets: Mapping[UUID, Wallet], now: datetime | None
) -> dict[UUID, Wallet]:
    """Return the wallets that have velocity limits, with these, in the windows of that time. None costs no query."""
    ids = [wallet.id for wallet in wallets.values() if wallet.has_velocity_limits]
    if not ids or now is None:
        return {}
    limits: dict[UUID, list[VelocityLimit]] = {}
    for row in await READ_VELOCITY.fetch(connection, ids=ids):
        limits.setdefault(row[-1], []).append(velocity_limit(row).at(now))
    return {id_: replace(wallets[id_], velocity=tuple(found)) for id_, found in limits.items()}


def velocity_limit(row: Any) -> VelocityLimit:
    """Return the limit of a row that begins with the columns of one."""
    limit = VelocityLimit(*tuple(row)[:11])
    return limit._replace(types=tuple(limit.types or ()), used_minor=int(limit.used_minor))


async def widen_limits(connection: asyncpg.Connection, read: Mapping[UUID, Wallet], made: Collection[Wallet]) -> None:
    """Give wallets whose limits are set the widest that they have at one of these versions.

    The trigger sees the balances of a whole batch at once, and the limits before or after that.
    """
    widest = {wallet.id: read[wallet.id] for wallet in made}
    for wallet in made:
        other = widest[wallet.id]
        maxima = (wallet.balance_max_minor, other.balance_max_minor)
        widest[wallet.id] = replace(
            other,
            overdraft_limit_minor=max(wallet.overdraft_limit_minor, other.overdraft_limit_minor),
            balance_max_minor=None if None in maxima else max(wallet.most_minor, other.most_minor),
        )
    await _write_limits(connection, widest.values())


async def set_limits(connection: asyncpg.Connection, wallets: Collection[Wallet]) -> None:
    """Write the limits of wallets that the transaction has written already; they replace those before."""
    await _write_limits(connection, wallets)
    await DELETE_VELOCITY.fetch(connection, ids=[wallet.id for wallet in wallets])
    rows = [
        (wallet.id, position, limit) for wallet in wallets for position, limit in enumerate(wallet.velocity, start=1)
    ]
    if rows:
        await INSERT_VELOCITY.fetch(
            connection,
            wallet_ids=[wallet_id for wallet_id, _, _ in rows],
            positions=[position for _, position, _ in rows],
            ids=[limit.id for _, _, limit in rows],
            directions=[limit.direction for _, _, limit in rows],
            types=[" ".join(limit.types) or None for _, _, limit in rows],
            windows=[limit.window for _, _, limit in rows],
            amounts=[limit.amount_minor for _, _, limit in rows],
            counts=[limit.count_max for _, _, limit in rows],
            since_versions=[limit.since_version for _, _, limit in rows],
            sinces=[limit.since for _, _, limit in rows],
            window_starts=[limit.window_start for _, _, limit in rows],
            used=[limit.used_minor for _, _, limit in rows],
            used_counts=[limit.used_count for _, _, limit in rows],
        )


async def write_used(connection: asyncpg.Connection, wallets: Collection[Wallet]) -> None:
    """Write what is used of the velocity limits of wallets that the transaction has written already."""
    rows = [(wallet.id, limit) for wallet in wallets for limit in wallet.velocity]
    await WRITE_USED.fetch(
        connection,
        wallet_ids=[wallet_id for wallet_id, _ in rows],
        ids=[limit.id for _, limit in rows],
        window_starts=[limit.window_start for _, limit in rows],
        used=[limit.used_minor for _, limit in rows],
        used_counts=[limit.used_count for _, limit in rows],
    )


async def _write_limits(connection: asyncpg.Connection, wallets: Collection[Wallet]) -> None:
    await WRITE_LIMITS.fetch(
        connection,
        ids=[wallet.id for wallet in wallets],
        overdraft_limits=[wallet.overdraft_limit_minor for wallet in wallets],
        maxima=[wallet.balance_max_minor for wallet in wallets],
        velocity=[wallet.has_velocity_limits for wallet in wallets],
    )
