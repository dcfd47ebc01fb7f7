"""Running a use case: one transaction, bounded retries, the reply only after the commit."""

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_random_exponential,
)

from common import failpoints
from common.database import may_succeed_again, sqlstate
from wallet_api import metrics
from wallet_api.commands import Fund
from wallet_api.errors import VersionConflict
from wallet_api.idempotency import decided_reply
from wallet_api.use_cases import CommandT, Outcome, UseCase, fund

log = structlog.get_logger()

_TRANSACTION_ATTEMPTS_MAX: Final = 5


def _count_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    metrics.transaction_retries.labels(sqlstate(error) or "stale-plan" if error else "version").inc()


async def execute(engine: AsyncEngine, use_case: UseCase[CommandT], commands: Sequence[CommandT]) -> list[Outcome]:
    """Run the use case in a transaction of its own and commit; return an outcome for each command.

    A transaction in which nothing was decided is rolled back: there is nothing to keep.

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
    return await retrying(_execute_once, engine, use_case, commands)


async def _execute_once(
    engine: AsyncEngine, use_case: UseCase[CommandT], commands: Sequence[CommandT]
) -> list[Outcome]:
    async with engine.connect() as connection, connection.begin() as transaction:
        outcomes = await use_case(connection, commands)
        if all(decided_reply(*pair) is None for pair in zip(commands, outcomes, strict=True)):
            await transaction.rollback()
        failpoints.hit("api.before_commit")
    failpoints.hit("api.committed")
    return outcomes


async def execute_fund(engine: AsyncEngine, command: Fund, attempts_max: int) -> Outcome:
    """Fund, reading again as often as others win the race for the wallet's version, up to a bound.

    With `If-Match` the client has named the version it wants: the second look then finds another one and says so.
    """
    retrying = AsyncRetrying(
        retry=retry_if_result(lambda outcomes: isinstance(outcomes[0], VersionConflict)),
        stop=stop_after_attempt(attempts_max),
        wait=wait_random_exponential(multiplier=0.001, max=0.05),
        before_sleep=_count_retry,
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    outcomes: list[Outcome] = await retrying(execute, engine, fund, [command])
    return outcomes[0]
