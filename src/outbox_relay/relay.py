"""The relay: claim lanes, publish their rows in order, settle them, in one transaction.

The row lock on a lane is its lease. A relay that dies or hangs loses the lease with its connection: it can settle
nothing after that. The next relay publishes again what was produced and not settled.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.identifiers import LANES
from common.postgres.raw_sql import BEGIN, raw_connection
from common.worker import Health, TemporaryError, database_deadline, database_errors
from outbox_relay import leases, metrics, queries
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.low_water import SafeIdTracker, raised_low_waters
from outbox_relay.numbering import Numbering
from outbox_relay.outcomes import Parked, Published, Retry, RowOutcome, decide_outcomes
from outbox_relay.publisher import BrokerAwayError, Publisher
from outbox_relay.queries import PendingRow
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()

_SNAPSHOT_INTERVAL_SECONDS: Final = 0.5
# A connection that a firewall has dropped never answers, and PostgreSQL's own timeouts don't reach the relay.
_DATABASE_SECONDS_MAX: Final = 15.0


class ClaimedBatch(NamedTuple):
    """The claimed lanes, each with its low water, and their pending rows, ascending by id."""

    low_waters: Mapping[int, int]
    lane_rows_max: int
    rows: list[PendingRow]


class Relay:
    """Publishes one batch at a time. A process has one of these for each batch in flight."""

    def __init__(
        self,
        settings: RelaySettings,
        engine: AsyncEngine,
        publisher: Publisher,
        health: Health,
        batching: AdaptiveBatching,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._health = health
        self._batching = batching
        self._safe_ids = SafeIdTracker()
        self._numbering = Numbering(engine, health)
        self._next_snapshot = 0.0
        self._is_broker_away = False
        # Halved whenever the time did not suffice for a batch. It always suffices for one row.
        self._rows_max = settings.relay_batch_rows

    async def run_once(self) -> int:
        """Publish one batch; return how many rows left the queue.

        Raises:
            TemporaryError: PostgreSQL or Kafka is away. What was settled stays settled; the rest is pending.
        """
        was_broker_away = self._is_broker_away
        if was_broker_away:
            await self._ping_broker()
        await self._batching.wait()
        with database_errors():
            outcomes = await self._claim_publish_settle()
        if outcomes is None:
            await self._numbering.renumber()
            return 1
        self._health.ok("database")
        count = self._account(outcomes)
        # A broker that answers a ping may still refuse every record.
        if outcomes or (was_broker_away and not await self._is_anything_pending()):
            self._health.ok("kafka")
        self._batching.note(count)
        return count

    async def _ping_broker(self) -> None:
        """Ask the broker before claiming, so that no transaction stays open while the broker is away."""
        try:
            await asyncio.to_thread(self._publisher.ping)
        except BrokerAwayError as error:
            raise TemporaryError("kafka", error) from error
        self._is_broker_away = False

    async def _is_anything_pending(self) -> bool:
        """Return whether rows are pending: another task may be publishing some of them, which the broker refuses."""
        async with database_deadline(_DATABASE_SECONDS_MAX), raw_connection(self._engine) as connection:
            return await queries.is_anything_pending(connection)

    async def _claim_publish_settle(self) -> Mapping[int, RowOutcome] | None:
        """Run one batch in one transaction; return the outcomes by row id.

        None means that the outbox's sequence is behind and nothing was claimed: rows with new ids would be published
        before older ones.
        """
        async with asyncio.timeout(_DATABASE_SECONDS_MAX) as deadline, raw_connection(self._engine) as connection:
            await connection.execute(BEGIN)
            # Before the claim, so that every row up to the safe id is in the claim's snapshot.
            if await self._is_sequence_behind(connection):
                return None
            batch = await self._claim(connection)
            if not batch.rows:
                metrics.oldest_pending_seconds.set(0)
                return {}
            # Publishing has its own time limit, and a thread can't be cancelled.
            deadline.reschedule(None)
            outcomes = await self._publish(batch.rows)
            deadline.reschedule(asyncio.get_running_loop().time() + _DATABASE_SECONDS_MAX)
            if all(isinstance(outcome, Retry) for outcome in outcomes.values()):
                return outcomes
            await self._settle(connection, batch, outcomes)
            await connection.execute("COMMIT")
        failpoints.hit("relay.committed")
        return outcomes

    async def _is_sequence_behind(self, connection: asyncpg.Connection) -> bool:
        """Every half second, observe which ids are safe; return whether new ids are below old ones."""
        now = time.monotonic()
        if now < self._next_snapshot:
            return False
        snapshot = await queries.read_id_snapshot(connection)
        metrics.sequence_behind.set(snapshot.behind)
        if snapshot.behind:
            return True
        self._next_snapshot = now + _SNAPSHOT_INTERVAL_SECONDS
        self._safe_ids.observe(snapshot)
        return False

    async def _claim(self, connection: asyncpg.Connection) -> ClaimedBatch:
        lanes_max = self._settings.relay_lanes_per_batch if self._batching.is_behind else LANES
        low_waters = await leases.claim_lanes(connection, min(lanes_max, self._rows_max))
        if not low_waters:
            return ClaimedBatch({}, 0, [])
        lane_rows_max = max(1, self._rows_max // len(low_waters))
        rows = await queries.read_pending(connection, low_waters, lane_rows_max)
        failpoints.hit("relay.claimed")
        return ClaimedBatch(low_waters, lane_rows_max, rows)

    async def _publish(self, rows: list[PendingRow]) -> dict[int, RowOutcome]:
        metrics.oldest_pending_seconds.set(max(0.0, time.time() - rows[0].created_at.timestamp()))
        with metrics.publish_seconds.time():
            reports = await asyncio.to_thread(self._publisher.publish, [row for row in rows if not row.waits])
        failpoints.hit("relay.produced_not_settled")
        return decide_outcomes(rows, reports)

    async def _settle(
        self, connection: asyncpg.Connection, batch: ClaimedBatch, outcomes: Mapping[int, RowOutcome]
    ) -> None:
        """Settle and park rows, and raise their lanes' low waters; the caller commits."""
        published = {row_id: outcome for row_id, outcome in outcomes.items() if isinstance(outcome, Published)}
        parked = {row_id: outcome for row_id, outcome in outcomes.items() if isinstance(outcome, Parked)}
        if published:
            await queries.settle(connection, published)
        if parked:
            await queries.park(connection, parked)
        raised = raised_low_waters(
            batch.low_waters,
            batch.rows,
            outcomes,
            self._safe_ids.safe_id,
            lane_rows_max=batch.lane_rows_max,
            step=self._settings.relay_low_water_step,
        )
        if raised:
            await queries.raise_low_waters(connection, raised)
            metrics.low_water_raises.inc(len(raised))
        failpoints.hit("relay.settled_not_committed")

    def _account(self, outcomes: Mapping[int, RowOutcome]) -> int:
        """Count the outcomes; return how many rows left the queue.

        Raises:
            TemporaryError: the broker is away.
        """
        for kind, count in Counter(map(type, outcomes.values())).items():
            metrics.rows.labels(kind.__name__.lower()).inc(count)
        retries = [outcome for outcome in outcomes.values() if isinstance(outcome, Retry)]
        undelivered = [retry for retry in retries if retry.is_broker_away]
        self._adapt_batch_size(had_time=len(undelivered) == len(retries))
        if undelivered:
            self._is_broker_away = True
            raise TemporaryError("kafka", undelivered[0].error)
        return len(outcomes) - len(retries)

    def _adapt_batch_size(self, *, had_time: bool) -> None:
        if had_time:
            self._rows_max = min(self._settings.relay_batch_rows, 2 * self._rows_max)
        else:
            self._rows_max = max(1, self._rows_max // 2)
            log.warning("publishing_is_slow", rows_max=self._rows_max)
