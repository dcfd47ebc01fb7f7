"""One transaction for a list of commands: begin, run the use case, commit, and only then return the replies."""

import asyncio
import random
from collections.abc import Sequence
from itertools import count
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.pauses import Pauses
from common.postgres.errors import UNIQUE_VIOLATION, may_succeed_again, sqlstate
from common.postgres.raw_sql import BEGIN, raw_connection
from wallet_api import metrics
from wallet_api.commands import CommandT
from wallet_api.replies import Reply
from wallet_api.use_cases.use_cases import UseCase

_ATTEMPTS_MAX: Final = 5
_PAUSES: Final = Pauses(0.01, 0.2)


class OutcomeUnknown(Exception):  # noqa: N818 - it says what is known, not what went wrong
    """`__cause__` came after COMMIT was sent. The transaction may be committed: run again, it may move money twice."""


async def execute(
    engine: AsyncEngine,
    use_case: UseCase[CommandT],
    commands: Sequence[CommandT],
    timeout_seconds: float | None = None,
) -> list[Reply]:
    """Run the use case in a transaction of its own and commit; return the reply to each command.

    A transaction in which nothing was decided is rolled back: it has nothing to keep.

    Raises:
        OutcomeUnknown: it failed after COMMIT was sent.
        Exception: any other means that nothing of the list was done. It is an asyncpg or a DBAPIError where the
            database refuses or is away, and a TimeoutError after `timeout_seconds`.
    """
    deadline = None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds
    for attempts in count(1):
        try:
            return await _execute_once(engine, use_case, commands, deadline)
        except Exception as error:
            pause_seconds = _retry_pause_seconds(error, attempts)
            if pause_seconds is None:
                raise
            metrics.transaction_retries.labels(sqlstate(error)).inc()
        await asyncio.sleep(pause_seconds)
    raise AssertionError("the last attempt returns or raises")


async def _execute_once(
    engine: AsyncEngine, use_case: UseCase[CommandT], commands: Sequence[CommandT], deadline: float | None
) -> list[Reply]:
    is_commit_sent = False
    try:
        async with asyncio.timeout_at(deadline), raw_connection(engine) as connection:
            await connection.execute(BEGIN)
            replies = await use_case(connection, commands)
            failpoints.hit("api.before_commit")
            if any(reply.is_decided for reply in replies):
                is_commit_sent = True
                await connection.execute("COMMIT")
        failpoints.hit("api.committed")
    except Exception as error:
        if is_commit_sent:
            raise OutcomeUnknown from error
        raise
    return replies


def _retry_pause_seconds(error: Exception, attempts: int) -> float | None:
    """Return after how many seconds a transaction that failed is run again as a whole, or None where it isn't.

    It is run again after a deadlock, a serialization failure, a stale plan and a unique key, `attempts` of 5 times.
    """
    # A unique key: another session has written this idempotency key meanwhile, and the next attempt sees it.
    is_retried = may_succeed_again(error) or sqlstate(error) == UNIQUE_VIOLATION
    if not is_retried or attempts >= _ATTEMPTS_MAX:
        return None
    return random.uniform(0, _PAUSES.after(attempts))  # noqa: S311
