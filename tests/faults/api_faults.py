"""Clients that hang up, and sessions that leave the API no connection."""

import random
from typing import Final

from faults.field import Act, Fault, Field, session

_CROWD: Final = 60


async def _hang_up(on: Field, fault: Fault) -> None:
    """Many clients that hang up in the middle of a request."""
    rng = random.Random(fault.choice)
    for _ in range(3):
        await on.driver.crowd(rng, _CROWD, lambda: rng.uniform(0.001, 0.05))


async def _exhaust_pool(on: Field, fault: Fault) -> None:
    """Every wallet is locked, so every connection of the pool waits: the API answers before its clients give up."""
    async with session(on) as connection, connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("SELECT FROM wallet.wallets ORDER BY id FOR UPDATE")
        asked = await on.driver.crowd(random.Random(fault.choice), _CROWD)
    on.driver.violations += [
        f"{operation.path} {operation.key}: no answer in time while the pool was exhausted"
        for operation in asked
        if operation.attempts[0] == "TimeoutError"
    ]


API_FAULTS: Final[dict[str, Act]] = {"hang up": _hang_up, "exhaust the pool": _exhaust_pool}
