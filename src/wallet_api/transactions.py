"""Running a use case: one transaction, bounded retries, the reply only after the commit."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.postgres.errors import UNIQUE_VIOLATION, may_succeed_again, sqlstate
from common.postgres.raw_sql import BEGIN, raw_connection
from wallet_api import metrics
from wallet_api.idempotency import decided_reply
from wallet_api.use_cases import CommandT, Outcome, UseCase

_TRANSACTION_ATTEMPTS_MAX: Final = 5
_PAUSE_FIRST_SECONDS: Final = 0.01
_PAUSE_LONGEST_SECONDS: Final = 0.2


class OutcomeUnknown(Exception):  # noqa: N818 - it says what is known, not what went wrong
    """The commit had begun when `__cause__` came: done or not. What is run again after it may be done twice."""


def _worth_another_try(error: BaseException) -> bool:
    # Another session wrote one of the idempotency keys meanwhile: now it can be seen.
    return may_succeed_again(error) or sqlstate(error) == UNIQUE_VIOLATION


async def execute(
    engine: AsyncEngine,
    use_case: UseCase[CommandT],
    commands: Sequence[CommandT],
    timeout_seconds: float | None = None,
) -> list[Outcome]:
    """Run the use case in a transaction of its own and commit; return an outcome for each command.

    A transaction in which nothing was decided is rolled back: there is nothing to keep.

    Raises:
        OutcomeUnknown: it failed while or after it was committed.
        Exception: any other means that nothing of the list was done: a Problem, an asyncpg or a DBAPIError
            where the database refuses or is away, a TimeoutError after `timeout_seconds`.
    """
    deadline = None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds
    for attempt in range(1, _TRANSACTION_ATTEMPTS_MAX):
        try:
            return await _execute_once(engine, use_case, commands, deadline)
        except Exception as error:
            if not _worth_another_try(error):
                raise
            metrics.transaction_retries.labels(sqlstate(error)).inc()
        await asyncio.sleep(random.uniform(0, min(_PAUSE_LONGEST_SECONDS, _PAUSE_FIRST_SECONDS * 2 ** (attempt - 1))))  # noqa: S311
    return await _execute_once(engine, use_case, commands, deadline)


async def _execute_once(
    engine: AsyncEngine, use_case: UseCase[CommandT], commands: Sequence[CommandT], deadline: float | None
) -> list[Outcome]:
    is_commit_begun = False
    try:
        async with asyncio.timeout_at(deadline), raw_connection(engine) as connection:
            await connection.execute(BEGIN)
            outcomes = await use_case(connection, commands)
            is_decided = any(decided_reply(*pair) for pair in zip(commands, outcomes, strict=True))
            failpoints.hit("api.before_commit")
            if is_decided:
                is_commit_begun = True
                await connection.execute("COMMIT")
        failpoints.hit("api.committed")
    except Exception as error:
        if is_commit_begun:
            raise OutcomeUnknown from error
        raise
    return outcomes
