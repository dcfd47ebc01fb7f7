"""The sums of the rows of wallets, ledger, outbox, topic and history, which are read side by side.

Where two sums are the same, the rows are the same. Where they differ, the rows are compared one by one: they are
different, or an event is on its way.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.kafka.topic_reader import TopicReader
from common.postgres.errors import sqlstate
from common.postgres.reading import fetch_all, fetch_one, fetch_value
from common.progress import Advance
from walletctl.verify import queries, sum_queries
from walletctl.verify.scope import BEGINNING
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.topic_records import Block, BlockSum, Ranges, block_sums

_DATA_EXCEPTION: Final = "22"

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Reading(Generic[ResultT]):
    """What was read, and how long that took."""

    found: ResultT
    seconds: float


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """What one pass over wallets and ledger tells.

    Args:
        wallet_count: how many wallets there are; after a horizon, how many of them have changed.
        entry_count: how many entries the ledger has.
        balanced: whether the entries of each transaction and of each currency sum to zero.
        chained: whether each wallet's entries lead from its creation to its version and balance.
        overdrawn: whether a wallet ever had less than it held. Its overdraft limit must have allowed that.
    """

    wallet_count: int
    entry_count: int
    balanced: bool
    chained: bool
    overdrawn: bool


@dataclass(frozen=True, slots=True)
class SliceSum:
    """The sums of the versions in one slice of time: how many, what they tell, by which events, and what else.

    `further` is what the history does not have.
    """

    row_count: int = 0
    facts: str | None = None
    events: str | None = None
    further: str | None = None

    def agrees(self, other: "SliceSum") -> bool:
        """Whether both tell the same of each version."""
        return (self.facts, self.further) == (other.facts, other.further)


SliceSums = Mapping[int, SliceSum]


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of an audit.

    Args:
        ledger: of wallets and ledger.
        facts: of the versions by the ledger.
        claims: of the versions by the outbox; none, if a payload has another shape than an event.
        history: of the history's rows.
        recorded: of the topic's records by the outbox.
        records: of the topic's records.
        repeats: whether an event id is repeated in the outbox.
        miscounts: whether the history has miscounted its rows.
    """

    ledger: Reading[LedgerSums]
    facts: Reading[SliceSums]
    claims: Reading[SliceSums]
    history: Reading[SliceSums]
    recorded: Reading[Mapping[Block, BlockSum]]
    records: Reading[Mapping[Block, BlockSum]]
    repeats: Reading[bool]
    miscounts: Reading[bool]


async def read_sums(snapshots: Snapshots, topic: TopicReader, ranges: Ranges, advance: Advance) -> Sums:
    """Read every row and every record once, the two databases and the topic side by side.

    Args:
        snapshots: the databases.
        topic: the reader of the topic.
        ranges: which records the outbox has recorded, of those that the topic keeps.
        advance: takes how many records have been read.

    Raises:
        ExceptionGroup: a server went away.
    """
    # A forger who does not know the seed can't make two rows with the same hash.
    parameters = {**snapshots.scope.parameters, **snapshots.scope.unit_parameters, "seed": secrets.randbits(62)}
    async with asyncio.TaskGroup() as tasks:
        records = tasks.create_task(_timed(block_sums(topic, ranges, advance)))
        history = tasks.create_task(_history_sums(snapshots.history, parameters))
        wallet = tasks.create_task(_wallet_sums(snapshots, ranges, parameters))
    return Sums(**await wallet, **await history, records=await records)


async def _history_sums(connection: AsyncConnection, parameters: Mapping[str, Any]) -> dict[str, Reading[Any]]:
    async with _without_sorts(connection):
        history = await _timed(_slice_sums(connection, sum_queries.HISTORY_SUMS, parameters))
    return {"history": history, "miscounts": await _timed(fetch_value(connection, queries.HAS_WRONG_PROGRESS))}


async def _wallet_sums(snapshots: Snapshots, ranges: Ranges, parameters: Mapping[str, Any]) -> dict[str, Reading[Any]]:
    connection = snapshots.wallet
    # First what no parallel workers share: meanwhile the history and the topic keep the other cores busy.
    repeats = await _timed(fetch_value(connection, queries.HAS_REPEATED_EVENT_IDS, since=snapshots.scope.since))
    async with _without_sorts(connection):
        return {
            "repeats": repeats,
            "ledger": await _timed(_ledger_sums(connection, parameters)),
            "facts": await _timed(_slice_sums(connection, sum_queries.FACT_SUMS, parameters)),
            "claims": await _timed(_claim_sums(connection, parameters)),
            "recorded": await _timed(_recorded_sums(connection, ranges, snapshots)),
        }


@asynccontextmanager
async def _without_sorts(connection: AsyncConnection) -> AsyncIterator[None]:
    """Group by hashes, whatever PostgreSQL expects, in the statements of the block."""
    await connection.execute(sum_queries.SORTS, {"enabled": "off"})
    yield
    await connection.execute(sum_queries.SORTS, {"enabled": "on"})


async def _ledger_sums(connection: AsyncConnection, parameters: Mapping[str, Any]) -> LedgerSums:
    seed, since = {"seed": parameters["seed"]}, {"since": parameters["since"]}
    currencies = await fetch_all(connection, sum_queries.LEDGER_SUMS, **seed, **since)
    if parameters["since"] == BEGINNING:
        wallets = await fetch_one(connection, sum_queries.WALLET_SUMS, **seed)
    else:
        wallets = await fetch_one(connection, sum_queries.WALLET_SUMS_SINCE, **seed, **since)
    return LedgerSums(
        wallet_count=wallets["wallet_count"],
        entry_count=sum(row.entry_count for row in currencies),
        balanced=all(row.balanced for row in currencies),
        chained=int(wallets["chain"]) + sum(int(row.chain) for row in currencies) == 0
        and not any(row.negative for row in currencies),
        overdrawn=any(row.overdrawn for row in currencies),
    )


async def _slice_sums(connection: AsyncConnection, query: TextClause, parameters: Mapping[str, Any]) -> SliceSums:
    own = {name: parameters[name] for name in query.compile().params}
    rows = await fetch_all(connection, query, **own)
    return {row.slice: SliceSum(row.row_count, row.facts, row.events, row.further) for row in rows}


async def _claim_sums(connection: AsyncConnection, parameters: Mapping[str, Any]) -> SliceSums:
    """Return the sums of the outbox. Without them each slice differs, and the rows are compared one by one."""
    try:
        async with connection.begin_nested():
            return await _slice_sums(connection, sum_queries.CLAIM_SUMS, parameters)
    except DBAPIError as error:
        if not (sqlstate(error) or "").startswith(_DATA_EXCEPTION):
            raise
        return {}


async def _recorded_sums(connection: AsyncConnection, ranges: Ranges, snapshots: Snapshots) -> Mapping[Block, BlockSum]:
    rows = await fetch_all(
        connection,
        sum_queries.RECORD_SUMS,
        since=snapshots.scope.since,
        partitions=list(ranges.begins),
        begins=list(ranges.begins.values()),
    )
    return {Block(row.partition, row.block): BlockSum(row.row_count, int(row.records)) for row in rows}


async def _timed(work: Awaitable[ResultT]) -> Reading[ResultT]:
    started = time.monotonic()
    return Reading(await work, time.monotonic() - started)
