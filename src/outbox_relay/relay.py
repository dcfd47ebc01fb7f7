"""The relay: claim lanes, publish their rows in order, settle them, in one transaction.

The row lock on the lane is the lease. A relay that dies or hangs loses it with its connection, so whatever it
produced but didn't settle is published again by the next, and whatever it would still settle it can't.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.identifiers import LANES
from common.postgres.errors import is_temporary, message_with_remedy
from common.postgres.raw_sql import BEGIN, raw_connection
from common.worker import Health, TemporaryError
from outbox_relay import leases, metrics, queries
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.low_water import SafeHorizon, raised_low_waters
from outbox_relay.numbering import Numbering
from outbox_relay.outcomes import Parked, Published, Retry, RowOutcome, decide_outcomes
from outbox_relay.publisher import BrokerAwayError, Publisher
from outbox_relay.queries import PendingRow
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()

_SNAPSHOT_INTERVAL_SECONDS: Final = 0.5
# What waits longer waits on a connection that a firewall forgot: nobody ends it but we.
_DATABASE_SECONDS_MAX: Final = 15.0


class SequenceBehindError(Exception):
    """New outbox ids are below old ones."""


class Relay:
    """One batch at a time: as many of these as there are batches in flight."""

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
        self._horizon = SafeHorizon()
        self._numbering = Numbering(engine, health)
        self._next_snapshot = 0.0
        self._is_broker_away = False
        # Halved while there isn't time for all: one row there is always time for.
        self._rows_max = settings.relay_batch_rows

    async def run_once(self) -> int:
        """Publish one batch; return how many rows left the queue.

        Raises:
            TemporaryError: PostgreSQL or Kafka is away. What was settled stays settled; the rest is pending.
        """
        was_away = self._is_broker_away
        if was_away:
            await self._ping_broker()
        await self._batching.wait()
        try:
            outcomes = await self._claim_publish_settle()
            # That the broker answers isn't enough: it may answer and take nothing.
            broker_is_fine = outcomes or (was_away and not await self._is_anything_pending())
        except SequenceBehindError:
            # Nothing is claimed: what has a new id would go out before what is older.
            await self._numbering.renumber()
            return 1
        except Exception as error:
            if is_temporary(error):
                raise TemporaryError("database", message_with_remedy(error)) from error
            raise
        self._health.ok("database")
        count = self._account(outcomes)
        if broker_is_fine:
            self._health.ok("kafka")
        self._batching.note(count)
        return count

    async def _ping_broker(self) -> None:
        """Ask before claiming: while the broker is away no transaction stays open."""
        try:
            await asyncio.to_thread(self._publisher.ping)
        except BrokerAwayError as error:
            raise TemporaryError("kafka", error) from error
        self._is_broker_away = False

    async def _is_anything_pending(self) -> bool:
        """Ask whether another of the tasks may have rows in hand that the broker refuses."""
        async with asyncio.timeout(_DATABASE_SECONDS_MAX), raw_connection(self._engine) as connection:
            return await queries.is_anything_pending(connection)

    async def _claim_publish_settle(self) -> Mapping[int, RowOutcome]:
        async with asyncio.timeout(_DATABASE_SECONDS_MAX) as deadline:
            async with raw_connection(self._engine) as connection:
                await connection.execute(BEGIN)
                safe_id = await self._read_safe_id(connection)
                lanes_max = self._settings.relay_lanes_per_batch if self._batching.is_behind else LANES
                low_waters = await leases.claim_lanes(connection, min(lanes_max, self._rows_max))
                if not low_waters:
                    metrics.oldest_pending_seconds.set(0)
                    return {}
                lane_rows_max = max(1, self._rows_max // len(low_waters))
                rows = await queries.read_pending(connection, low_waters, lane_rows_max)
                failpoints.hit("relay.claimed")
                # Publishing has bounds of its own, and a thread can't be given up.
                deadline.reschedule(None)
                outcomes = await self._publish(rows)
                deadline.reschedule(asyncio.get_running_loop().time() + _DATABASE_SECONDS_MAX)
                failpoints.hit("relay.produced_not_settled")
                if all(isinstance(outcome, Retry) for outcome in outcomes.values()):
                    return outcomes
                await _settle(connection, outcomes)
                raised = raised_low_waters(
                    low_waters,
                    rows,
                    outcomes,
                    safe_id,
                    lane_rows_max=lane_rows_max,
                    step=self._settings.relay_low_water_step,
                )
                if raised:
                    await queries.raise_low_waters(connection, raised)
                    metrics.low_water_raises.inc(len(raised))
                failpoints.hit("relay.settled_not_committed")
                await connection.execute("COMMIT")
        failpoints.hit("relay.committed")
        return outcomes

    async def _read_safe_id(self, connection: asyncpg.Connection) -> int:
        """Return the safe id; before the claim, so that what it covers is in the claim's snapshot."""
        now = time.monotonic()
        if now >= self._next_snapshot:
            self._next_snapshot = now + _SNAPSHOT_INTERVAL_SECONDS
            snapshot = await queries.read_id_snapshot(connection)
            metrics.sequence_behind.set(snapshot.behind)
            if snapshot.behind:
                self._next_snapshot = now
                raise SequenceBehindError
            self._horizon.observe(snapshot)
        return self._horizon.safe_id

    async def _publish(self, rows: list[PendingRow]) -> dict[int, RowOutcome]:
        if rows:
            metrics.oldest_pending_seconds.set(max(0.0, time.time() - rows[0].created_at.timestamp()))
        with metrics.publish_seconds.time():
            reports = await asyncio.to_thread(self._publisher.publish, [row for row in rows if not row.waits])
        return decide_outcomes(rows, reports)

    def _account(self, outcomes: Mapping[int, RowOutcome]) -> int:
        for kind, count in Counter(map(type, outcomes.values())).items():
            metrics.rows.labels(kind.__name__.lower()).inc(count)
        retries = [outcome for outcome in outcomes.values() if isinstance(outcome, Retry)]
        self._note_time_left(not any(not retry.is_broker_away for retry in retries))
        away = next((retry for retry in retries if retry.is_broker_away), None)
        if away is not None:
            self._is_broker_away = True
            raise TemporaryError("kafka", away.error)
        return len(outcomes) - len(retries)

    def _note_time_left(self, was_enough: bool) -> None:
        if was_enough:
            self._rows_max = min(self._settings.relay_batch_rows, 2 * self._rows_max)
        else:
            self._rows_max = max(1, self._rows_max // 2)
            log.warning("publishing_is_slow", rows_max=self._rows_max)


async def _settle(connection: asyncpg.Connection, outcomes: Mapping[int, RowOutcome]) -> None:
    published = {row_id: outcome for row_id, outcome in outcomes.items() if isinstance(outcome, Published)}
    parked = {row_id: outcome for row_id, outcome in outcomes.items() if isinstance(outcome, Parked)}
    if published:
        await queries.settle(connection, published)
    if parked:
        await queries.park(connection, parked)
