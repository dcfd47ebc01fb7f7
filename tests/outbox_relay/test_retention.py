"""Retention deletes old published rows and old keys, and no other rows."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.worker import TemporaryError
from outbox_relay import retention, retention_queries
from outbox_relay.operations import replay
from outbox_relay.operations.replay import Selection
from outbox_relay.retention import OutboxRetention, RetentionAges
from support.outboxes import Outbox, drain
from support.relay_pipeline import RelayPipeline

WEEK = RetentionAges(7, 7)
PUBLISHED = "published_at = created_at, kafka_partition = 0, kafka_offset = id"


async def sql(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def prune(engine: AsyncEngine) -> list[tuple[int, int]]:
    """Prune until a relay would pause; return how many rows and keys each chunk deleted."""
    worker, before, found = OutboxRetention(engine, WEEK), counted(), []
    while True:
        more = await worker.run_once()
        now = counted()
        found.append((now[0] - before[0], now[1] - before[1]))
        before = now
        if not more:
            return found


def counted() -> tuple[int, int]:
    """Return the metric's values: deleted rows and deleted keys."""
    rows, keys = (
        int(REGISTRY.get_sample_value("outbox_relay_pruned_total", {"table": table}) or 0)
        for table in ("outbox", "idempotency_keys")
    )
    return rows, keys


async def scalar(engine: AsyncEngine, query: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(query))


async def test_only_rows_that_were_written_and_published_long_ago_are_deleted(
    outbox: Outbox, engine: AsyncEngine, relay_engine: AsyncEngine, operator: AsyncEngine
) -> None:
    await outbox.write(uuid4(), 7, '{"wallets": [{}, {}]}')
    old, published, late, pending, parked, skipped, young = [row["id"] for row in await outbox.rows()]
    await sql(
        engine,
        f"UPDATE wallet.outbox SET created_at = now() - interval '8 days' WHERE id <> {young}",
        f"UPDATE wallet.outbox SET {PUBLISHED} WHERE id IN ({old}, {published}, {late}, {young})",
        f"UPDATE wallet.outbox SET published_at = now() - interval '6 days' WHERE id = {late}",
        f"UPDATE wallet.outbox SET parked_at = created_at WHERE id IN ({parked}, {skipped})",
        f"UPDATE wallet.outbox SET skipped_at = created_at WHERE id = {skipped}",
    )
    assert await retention.count_prunable(operator, WEEK) == (2, 0)
    assert await prune(relay_engine) == [(2, 0)]
    assert [row["id"] for row in await outbox.rows()] == [late, pending, parked, skipped, young]
    async with engine.connect() as connection:
        noted = (await connection.execute(text("SELECT * FROM wallet.outbox_pruned"))).mappings().one()
    assert (noted["row_count"], noted["version_count"], noted["up_to_id"]) == (2, 4, published)
    assert timedelta(days=7.9) < datetime.now(UTC) - noted["up_to_created_at"] < timedelta(days=8.1)


async def test_old_rows_are_deleted_in_chunks_past_rows_that_are_kept(
    outbox: Outbox, engine: AsyncEngine, relay_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK_ROWS_MAX", 10)
    await outbox.write(uuid4(), 45)
    first = (await outbox.rows())[0]["id"]
    await sql(
        engine,
        f"UPDATE wallet.outbox SET created_at = now() - interval '8 days' WHERE id < {first + 35}",
        f"UPDATE wallet.outbox SET parked_at = now() WHERE id BETWEEN {first} AND {first + 19}",
        f"UPDATE wallet.outbox SET {PUBLISHED} WHERE parked_at IS NULL",
    )
    assert await prune(relay_engine) == [(0, 0), (0, 0), (10, 0), (5, 0)]
    left = {row["id"] for row in await outbox.rows()}
    assert left == {*range(first, first + 20), *range(first + 35, first + 45)}
    assert await prune(relay_engine) == [(0, 0), (0, 0), (0, 0)]


async def test_a_row_that_is_published_after_the_pruner_passed_it_is_deleted_after_the_hourly_rewind(
    pipeline: RelayPipeline,
) -> None:
    await pipeline.write(uuid4(), 2)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET created_at = now() - interval '8 days'")
    worker = OutboxRetention(pipeline.relay, WEEK)
    await worker.run_once()
    await drain(pipeline.new_relay())
    await sql(pipeline.engine, "UPDATE wallet.outbox SET published_at = created_at")
    await worker.run_once()
    assert len(await pipeline.rows()) == 2
    worker._rewind_at = 0.0
    await worker.run_once()
    assert await pipeline.rows() == []


async def test_a_row_that_a_replay_has_locked_is_kept(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4(), 3)
    await drain(pipeline.new_relay())
    await sql(
        pipeline.engine,
        "UPDATE wallet.outbox SET created_at = now() - interval '8 days'",
        "UPDATE wallet.outbox SET published_at = created_at",
    )
    last = (await pipeline.rows())[-1]["id"]
    async with pipeline.engine.connect() as replaying, replaying.begin():
        await replaying.execute(text(f"SELECT FROM wallet.outbox WHERE id = {last} FOR UPDATE"))
        assert await prune(pipeline.relay) == [(2, 0)]
    _ = [ids async for ids in replay.replay(pipeline.operator, Selection(from_id=1))]
    assert await prune(pipeline.relay) == [(0, 0)]
    assert await drain(pipeline.new_relay()) == 1


async def test_old_keys_are_deleted_and_young_ones_kept(
    engine: AsyncEngine, relay_engine: AsyncEngine, operator: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK_ROWS_MAX", 10)
    await sql(
        engine,
        """
        INSERT INTO wallet.idempotency_keys (key, request_hash, created_at)
        SELECT 'key ' || days, '', now() - days * interval '1 day' FROM generate_series(1, 30) AS days
        """,
    )
    assert await retention.count_prunable(operator, WEEK) == (0, 24)
    assert await prune(relay_engine) == [(0, 10), (0, 10), (0, 4)]
    assert await scalar(engine, "SELECT count(*) FROM wallet.idempotency_keys") == 6


async def test_one_pruner_works_at_a_time_and_the_others_do_nothing(
    outbox: Outbox, engine: AsyncEngine, relay_engine: AsyncEngine
) -> None:
    await outbox.write(uuid4(), 2)
    await sql(engine, f"UPDATE wallet.outbox SET created_at = '2020-01-01', {PUBLISHED}")
    await sql(engine, "UPDATE wallet.outbox SET published_at = created_at")
    async with engine.connect() as other, other.begin():
        assert await retention_queries.lock(other, wait=False)
        assert await prune(relay_engine) == [(0, 0)]
    assert await prune(relay_engine) == [(2, 0)]


async def test_pruning_by_hand_writes_an_audit_row(outbox: Outbox, engine: AsyncEngine, operator: AsyncEngine) -> None:
    await outbox.write(uuid4(), 3)
    await sql(engine, f"UPDATE wallet.outbox SET {PUBLISHED}")
    await sql(engine, "UPDATE wallet.outbox SET created_at = '2020-01-01', published_at = '2020-01-01'")
    assert [(chunk.rows, chunk.keys) async for chunk in retention.prune(operator, WEEK, "room")] == [(3, 0)]
    async with engine.connect() as connection:
        audit = (await connection.execute(text("SELECT * FROM wallet.outbox_audit"))).mappings().one()
    assert (audit["action"], audit["row_count"], audit["reason"]) == ("prune", 3, "room")
    assert audit["selection"] == {"outbox_days": 7, "keys_days": 7, "keys": 0}


async def test_while_the_database_is_away_pruning_fails_as_temporary() -> None:
    engine = create_engine("postgresql://postgres@127.0.0.1:1/nowhere", "tests")
    with pytest.raises(TemporaryError, match="database"):
        await OutboxRetention(engine, WEEK).run_once()
