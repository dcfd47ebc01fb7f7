"""Running a use case: one transaction, bounded retries, the reply only after the commit."""

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from common import failpoints
from common.database import may_succeed_again, sqlstate
from wallet_api import metrics, queries
from wallet_api.idempotency import decided_reply
from wallet_api.use_cases import CommandT, Outcome, UseCase

log = structlog.get_logger()

_TRANSACTION_ATTEMPTS_MAX: Final = 5


def _count_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    metrics.transaction_retries.labels((error and sqlstate(error)) or "stale-plan").inc()


async def execute(
    engine: AsyncEngine,
    use_case: UseCase[CommandT],
    commands: Sequence[CommandT],
    lock_timeout_seconds: float | None = None,
) -> list[Outcome]:
    """Run the use case in a transaction of its own and commit; return an outcome for each command.

    A transaction in which nothing was decided is rolled back: there is nothing to keep. Locks are waited for as
    long as the engine's sessions do, or `lock_timeout_seconds`.

    Raises:
        Problem: nothing of the list was done.
        sqlalchemy.exc.DBAPIError: the database refuses or is away; nothing is known of the outcome.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(may_succeed_again),
        stop=stop_after_attempt(_TRANSACTION_ATTEMPTS_MAX),
        wait=wait_random_exponential(multiplier=0.01, max=0.2),
        before_sleep=_count_retry,
        reraise=True,
    )
    return await retrying(_execute_once, engine, use_case, commands, lock_timeout_seconds)


async def _execute_once(
    engine: AsyncEngine,
    use_case: UseCase[CommandT],
    commands: Sequence[CommandT],
    lock_timeout_seconds: float | None,
) -> list[Outcome]:
    async with engine.connect() as connection, connection.begin() as transaction:
        if lock_timeout_seconds is not None:
            await queries.set_lock_timeout(connection, lock_timeout_seconds)
        outcomes = await use_case(connection, commands)
        if all(decided_reply(*pair) is None for pair in zip(commands, outcomes, strict=True)):
            await transaction.rollback()
        failpoints.hit("api.before_commit")
    failpoints.hit("api.committed")
    return outcomes
