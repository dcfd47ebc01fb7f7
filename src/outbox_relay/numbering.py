"""Puts outbox ids in order again after their sequence went back.

Low waters and the order of publishing rely on ids that rise. After a cut-over to a logical replica, or after restoring
a dump in parts, the sequence may be behind ids that were handed out before.
"""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import Pauses
from common.postgres.errors import INSUFFICIENT_PRIVILEGE, QUERY_CANCELED, sqlstate
from common.worker import Health, TemporaryError, database_deadline
from outbox_relay import metrics, numbering_queries

log = structlog.get_logger()

CHECK_PAUSES: Final = Pauses(60.0, 60.0)
"""How often a relay looks for stranded rows: pending rows below their lane's low water."""

HEALTH_CHECK: Final = "outbox_ids"
"""The name under which `/ready` says that ids are not in order."""

_CHECK_SECONDS_MAX: Final = 5.0
_RENUMBER_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True)
class RenumberingResult:
    """By how many ids the sequence was behind, and how many rows got new ids."""

    behind: int
    moved: int


async def renumber(engine: AsyncEngine) -> RenumberingResult:
    """Raise the sequence above all ids, and give misplaced rows new ones. Does nothing where ids are in order.

    Safe at any time. For some milliseconds it holds all lanes' leases and blocks the API's writes. The role must be
    allowed to set the sequence, as its owner is.
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


async def renumber_if_needed(engine: AsyncEngine) -> None:
    """Renumber if the sequence is behind or a row is stranded. If not, no lock keeps a request waiting."""
    async with engine.begin() as connection:
        last_id, highest_id = await numbering_queries.ids(connection)
        is_needed = highest_id > last_id or await numbering_queries.is_any_stranded(connection, 0)
    if is_needed:
        await renumber(engine)


class Numbering:
    """A relay's check of the ids: it renumbers rows where needed, and reports it."""

    def __init__(self, engine: AsyncEngine, health: Health) -> None:
        self._engine = engine
        self._health = health

    async def run_once(self) -> int:
        """Renumber if a row is stranded; return 0: nothing more to do until the next check.

        Raises:
            TemporaryError: as `renumber` does.
        """
        async with database_deadline(2 * _CHECK_SECONDS_MAX):
            is_stranded = await self._is_any_stranded()
        if is_stranded:
            await self.renumber()
        return 0

    async def _is_any_stranded(self) -> bool:
        try:
            async with self._engine.begin() as connection:
                return await numbering_queries.is_any_stranded(connection, _CHECK_SECONDS_MAX)
        except DBAPIError as error:
            if sqlstate(error) != QUERY_CANCELED:
                raise
            log.warning("outbox_ids_not_checked", error=str(error))
            return False

    async def renumber(self) -> None:
        """Put the ids in order.

        Raises:
            TemporaryError: the database is away or busy, or this relay's role lacks the privilege.
        """
        async with database_deadline(_RENUMBER_SECONDS_MAX):
            result = await self._renumber()
        if result.behind or result.moved:
            log.error("outbox_ids_put_in_order", behind=result.behind, rows_moved=result.moved)
        metrics.rows_moved.inc(result.moved)
        metrics.sequence_behind.set(0)
        self._health.ok(HEALTH_CHECK)

    async def _renumber(self) -> RenumberingResult:
        try:
            return await renumber(self._engine)
        except DBAPIError as error:
            if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
                raise
            problem = "new outbox ids are below old ones, and this relay's role may not raise the sequence"
            raise TemporaryError(HEALTH_CHECK, f"{problem}: run walletctl db migrate ({error.orig})") from error
