"""Whether a time is final: no transaction in flight can still write a version of an earlier time.

docs/decisions/0033-when-a-time-is-final.md has the proof.
"""

import asyncio
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from wallet_api.statements import queries

READING_SECONDS_MAX: Final = 310.0
"""PostgreSQL ends each session of an API whose transaction takes longer, unless it is committing.

The longest TRANSACTION_TIMEOUT_SECONDS, and the 5 seconds that a hung transaction may go on.
"""

# A transaction of the API takes milliseconds, so most of those in flight have ended after a few looks.
_PAUSES_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08)


async def is_final(reader: AsyncEngine, at: datetime) -> bool:
    """Return whether all transactions that might write a time up to `at` have ended; wait a moment for them.

    What is read after that is final. A transaction that begins later takes a later time.

    Args:
        reader: the engine, of any role.
        at: not in the future.
    """
    in_flight = await _in_flight(reader, at)
    for pause_seconds in _PAUSES_SECONDS:
        if not in_flight:
            break
        await asyncio.sleep(pause_seconds)
        in_flight &= await _in_flight(reader, at)
    return not in_flight


async def _in_flight(reader: AsyncEngine, at: datetime) -> set[str]:
    async with reader.connect() as connection:
        return await queries.may_write_before(connection, at, READING_SECONDS_MAX)
