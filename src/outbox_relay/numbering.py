"""Outbox ids rise, or else: what a sequence that went back has done is found and undone.

A low water is a hint about ids, and an order by ids is an order of events, only as long as each new id is above all
before it. After a cut-over to a logical replica, or from a dump restored in parts, the sequence may be behind.
"""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import Pauses
from common.postgres.errors import QUERY_CANCELED, is_temporary, message_with_remedy, sqlstate
from common.worker import Health, TemporaryError
from outbox_relay import metrics, numbering_queries

log = structlog.get_logger()

CHECK_PAUSES: Final = Pauses(60.0, 60.0)
"""How often a relay looks for rows where no relay looks."""

HEALTH_CHECK: Final = "outbox_ids"
"""Under this name `/ready` says that the ids are not in order."""

_CHECK_SECONDS_MAX: Final = 5.0
_INSUFFICIENT_PRIVILEGE: Final = "42501"


@dataclass(frozen=True)
class RenumberingResult:
    """What was put right: by how many ids the sequence was behind, and how many rows have new ids."""

    behind: int
    moved: int


async def renumber(engine: AsyncEngine) -> RenumberingResult:
    """Raise the sequence above all ids, and give rows that are misplaced new ones; nothing to do is nothing done.

    Safe at any time. Holds all lanes' leases and keeps the wallets from writing meanwhile, for some milliseconds as a
    rule. Needs the right to set the sequence, which its owner has.
    """
    async with engine.begin() as connection:
        await numbering_queries.lock(connection)
        last_id, highest_id = await numbering_queries.ids(connection)
        behind = max(0, highest_id - last_id)
        above_id = max(last_id, highest_id)
        moved = await numbering_queries.move_misplaced(connection, last_id if behind else 0, above_id)
        if behind or moved:
            await numbering_queries.set_sequence(connection, above_id + moved)
    return RenumberingResult(behind, moved)


class Numbering:
    """Puts ids in order when a relay finds that they aren't, and says so."""

    def __init__(self, engine: AsyncEngine, health: Health) -> None:
        self._engine = engine
        self._health = health

    async def run_once(self) -> int:
        """Look whether a pending row lies below its lane's low water, and heal; return 0: no more until next time."""
        try:
            async with self._engine.begin() as connection:
                is_stranded = await numbering_queries.is_any_stranded(connection, _CHECK_SECONDS_MAX)
        except Exception as error:
            if sqlstate(error) == QUERY_CANCELED:
                log.warning("outbox_ids_not_checked", error=str(error))
                return 0
            if is_temporary(error):
                raise TemporaryError("database", message_with_remedy(error)) from error
            raise
        if is_stranded:
            await self.renumber()
        return 0

    async def renumber(self) -> None:
        """Put the ids in order.

        Raises:
            TemporaryError: the database is away or busy, or a relay may not do this: the message says who may.
        """
        try:
            result = await renumber(self._engine)
        except Exception as error:
            if isinstance(error, DBAPIError) and sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
                what = "new outbox ids are below old ones, and this relay may not mend it: walletctl db migrate"
                raise TemporaryError(HEALTH_CHECK, f"{what} ({error.orig})") from error
            if is_temporary(error):
                raise TemporaryError("database", message_with_remedy(error)) from error
            raise
        if result.behind or result.moved:
            log.error("outbox_ids_put_in_order", behind=result.behind, rows_moved=result.moved)
        metrics.rows_moved.inc(result.moved)
        metrics.sequence_behind.set(0)
        self._health.ok(HEALTH_CHECK)
