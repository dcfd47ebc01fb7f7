"""The horizon of the last clean audit, which is stored: `walletctl verify --since` compares only what came after it.

A horizon is a time up to which everything was compared in all five places. It is used only if the databases, the topic
and the number of older rows are those of then. If not, the audit compares everything (decision 0032).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from common.kafka.topic_reader import TopicReader
from common.postgres.engine import operator_engine
from common.postgres.reading import fetch_one
from common.settings import PipelineSettings
from walletctl.verify import horizon_queries
from walletctl.verify.scope import BEGINNING
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.topic_records import Ranges

# Longer than any request takes: a transaction under way may commit an entry that was created before the snapshot. If
# one takes longer, the number of older entries tells.
UNCOMMITTED_SECONDS_MAX: Final = 60.0

_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanHorizon:
    """What a clean audit has proved.

    Args:
        up_to: the time up to which everything was compared.
        full_at: when the last clean audit of everything took its snapshot.
        taken_at: when this audit took its snapshot.
        identity: the databases, the tables and the topic, each by what changes if it is replaced.
        counts: how many rows up to that time there were, by table.
        read_to: the first offset that was not read, by partition.
    """

    up_to: datetime
    full_at: datetime
    taken_at: datetime
    identity: Mapping[str, str]
    counts: Mapping[str, int]
    read_to: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Start:
    """Where an audit begins: after a horizon, or, without one, at the beginning, and why."""

    horizon: CleanHorizon | None = None
    why_all: str | None = None

    @property
    def since(self) -> datetime:
        """The time after which rows are compared."""
        return self.horizon.up_to if self.horizon else BEGINNING

    @property
    def read_to(self) -> Mapping[int, int]:
        """The offset from which records are read at the latest, by partition."""
        return self.horizon.read_to if self.horizon else {}


async def start_after_last(snapshots: Snapshots, topic: TopicReader, settings: PipelineSettings) -> Start:
    """Return the start of an audit of what came after the last clean one."""
    stored = (await snapshots.wallet.execute(horizon_queries.STORED, _names(settings))).mappings().one_or_none()
    if stored is None:
        return Start(why_all="no clean run is stored")
    horizon = _horizon_of(dict(stored))
    identity = await _identity(snapshots, topic)
    if changed := sorted(name for name in identity if identity[name] != horizon.identity.get(name)):
        return Start(why_all=f"since the last clean run, this has changed: {', '.join(changed)}")
    counts = await _counts(snapshots, horizon.up_to)
    for table, count in counts.items():
        if count != horizon.counts.get(table):
            return Start(why_all=f"{table} had {horizon.counts.get(table)} rows up to {horizon.up_to}, and has {count}")
    return Start(horizon)


async def reached(snapshots: Snapshots, topic: TopicReader, start: Start, ranges: Ranges) -> CleanHorizon:
    """Return the horizon that this audit has reached, if it is clean.

    It lies before the oldest event that is still on its way: that event was not compared everywhere.
    """
    taken_at = snapshots.wallet_figures["taken_at"]
    up_to = taken_at - timedelta(seconds=UNCOMMITTED_SECONDS_MAX)
    if (oldest_at := snapshots.outbox.oldest_on_its_way_at) is not None:
        up_to = min(up_to, oldest_at - _INSTANT)
    return CleanHorizon(
        up_to=up_to,
        full_at=start.horizon.full_at if start.horizon else taken_at,
        taken_at=taken_at,
        identity=await _identity(snapshots, topic),
        counts=await _counts(snapshots, up_to),
        read_to={**start.read_to, **ranges.ends},
    )


async def may_store(snapshots: Snapshots) -> bool:
    """Return whether this login may store the horizon, in a database that takes writes."""
    return bool((await fetch_one(snapshots.wallet, horizon_queries.MAY_STORE))["may_store"])


async def store(settings: PipelineSettings, horizon: CleanHorizon) -> None:
    """Store the horizon of a clean audit, unless that of a later one is stored."""
    parameters = {
        **_names(settings),
        **{name: getattr(horizon, name) for name in ("up_to", "full_at", "taken_at")},
        **{name: orjson.dumps(getattr(horizon, name)).decode() for name in ("identity", "counts")},
        "read_to": orjson.dumps(horizon.read_to, option=orjson.OPT_NON_STR_KEYS).decode(),
    }
    async with operator_engine(settings.database_url) as engine, engine.begin() as connection:
        await connection.execute(horizon_queries.STORE, parameters)


def _names(settings: PipelineSettings) -> dict[str, str]:
    return {"topic": settings.kafka_topic, "consumer_group": settings.consumer_group}


def _horizon_of(row: Mapping[str, Any]) -> CleanHorizon:
    read_to = {int(partition): offset for partition, offset in row["read_to"].items()}
    return CleanHorizon(**{**row, "read_to": read_to})


async def _identity(snapshots: Snapshots, topic: TopicReader) -> dict[str, str]:
    wallet = await fetch_one(snapshots.wallet, horizon_queries.IDENTITY, table="wallet.wallet_transactions")
    history = await fetch_one(snapshots.history, horizon_queries.IDENTITY, table="history.transaction_events")
    return {
        "the wallet database": wallet["identity"],
        "the history's database or table": history["identity"],
        "the source epoch": str(snapshots.epoch.number),
        "the topic": topic.id,
    }


async def _counts(snapshots: Snapshots, up_to: datetime) -> dict[str, int]:
    async with asyncio.TaskGroup() as tasks:
        wallet = tasks.create_task(fetch_one(snapshots.wallet, horizon_queries.WALLET_COUNTS, up_to=up_to))
        history = tasks.create_task(fetch_one(snapshots.history, horizon_queries.HISTORY_COUNTS, up_to=up_to))
    return {**await wallet, **await history}
