"""Releases overdue holds, so that what they reserved is available even if no command asks for it.

A hold is expired from its time on, whether or not a releaser came by. Any number of processes have one each: of two
that find the same hold, the second is refused.
"""

import asyncio
import random
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.errors import is_unreachable
from common.problems import Unavailable
from common.rate_limited_logs import RateLimitedLog
from wallet_api import metrics
from wallet_api.group_commit.group_commit import GroupCommit
from wallet_api.holds import queries
from wallet_api.operations.holds import ExpireHold
from wallet_api.operations.operation import Operation
from wallet_api.replies import DONE

log = RateLimitedLog(structlog.get_logger())

_BATCH_HOLDS: Final = 100


class HoldReleaser:
    """Releases overdue holds until it is cancelled.

    Args:
        reader: where it looks for overdue holds.
        operations: which releases them, beside the commands of requests.
        pause_seconds: between two looks, unless there may be more to release.
    """

    def __init__(self, reader: AsyncEngine, operations: GroupCommit[Operation], pause_seconds: float) -> None:
        self._reader = reader
        self._operations = operations
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Look again and again; while the database is unavailable, pause."""
        while True:
            # Not all processes at the same time.
            await asyncio.sleep(self._pause_seconds * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                while await self.release() == _BATCH_HOLDS:
                    pass
            except Exception as error:
                if not isinstance(error, Unavailable) and not is_unreachable(error):
                    raise
                log.warning("holds_not_released", error=error, pause_seconds=self._pause_seconds)

    async def release(self) -> int:
        """Release the oldest overdue holds; return how many, at most 100."""
        async with self._reader.connect() as connection:
            overdue = await queries.overdue_holds(connection, _BATCH_HOLDS)
        commands = [ExpireHold.of(hold_id, wallet_id) for hold_id, wallet_id in overdue]
        replies = await asyncio.gather(*(self._operations.submit(command) for command in commands))
        for reply in replies:
            metrics.operations.labels(ExpireHold.name, reply.outcome).inc()
        return sum(reply.outcome == DONE for reply in replies)
