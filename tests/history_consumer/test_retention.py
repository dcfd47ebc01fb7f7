"""Consumers delete old dead letters if the retention is set, but never a version conflict."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.worker import Health, TemporaryError
from history_consumer import dead_letter_queries, retention
from history_consumer.operations.dead_letter_prune import count_prunable
from history_consumer.retention import DeadLetterRetention
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings

Rows = Callable[..., Awaitable[list[Any]]]

LETTERS = "SELECT reason FROM history.dead_letters ORDER BY id"


async def add_dead_letters(rows: Rows, *letters: tuple[str, int]) -> None:
    """Store dead letters, each with a reason and an age in days."""
    for offset, (reason, days) in enumerate(letters):
        await rows(
            """
            INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, headers, reason, detail, created_at)
            VALUES ('topic', 0, :offset, 'id', '[]', :reason, 'x', now() - make_interval(days => :days))
            """,
            offset=offset,
            reason=reason,
            days=days,
        )


async def test_old_dead_letters_are_deleted_but_young_ones_and_conflicts_stay(
    operator: AsyncEngine, consumer_engine: AsyncEngine, rows: Rows
) -> None:
    await add_dead_letters(rows, ("not-json", 31), ("version-conflict", 99), ("superseded", 31), ("wrong-shape", 29))
    assert await count_prunable(operator, 30) == (2, 1)
    assert await DeadLetterRetention(consumer_engine, 30).run_once() == 0
    assert await rows(LETTERS) == [("version-conflict",), ("wrong-shape",)]


async def test_many_dead_letters_are_deleted_in_chunks(
    consumer_engine: AsyncEngine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK_LETTERS_MAX", 2)
    await add_dead_letters(rows, ("version-conflict", 31), *[("not-json", 31)] * 5)
    worker = DeadLetterRetention(consumer_engine, 30)
    assert [await worker.run_once() for _ in range(3)] == [1, 1, 0]
    assert await rows(LETTERS) == [("version-conflict",)]


async def test_pruning_skips_a_dead_letter_that_a_retry_has_locked(
    operator: AsyncEngine, consumer_engine: AsyncEngine, rows: Rows
) -> None:
    await add_dead_letters(rows, ("not-json", 31), ("not-json", 31))
    async with operator.begin() as connection:
        await dead_letter_queries.lock(connection, [1])
        assert await DeadLetterRetention(consumer_engine, 30).run_once() == 0
    assert await rows("SELECT id FROM history.dead_letters") == [(1,)]


@pytest.mark.parametrize("days", [None, 30.0])
async def test_a_consumer_prunes_only_if_the_retention_is_set(
    consumer_settings: ConsumerSettings, rows: Rows, eventually: Callable[..., Awaitable[Any]], days: float | None
) -> None:
    await add_dead_letters(rows, ("not-json", 1000))
    stop, health = asyncio.Event(), Health({"kafka": "not asked yet"})
    settings = consumer_settings.model_copy(update={"dead_letter_retention_days": days})
    running = asyncio.create_task(consume(settings, stop, health))

    async def done() -> bool:
        return health.checks["kafka"] == "ok" and (days is None or await rows(LETTERS) == [])

    await eventually(done)
    stop.set()
    await asyncio.wait_for(running, 20)
    assert await rows(LETTERS) == ([("not-json",)] if days is None else [])


async def test_pruning_fails_as_temporary_while_the_database_is_away() -> None:
    engine = create_engine("postgresql://postgres@127.0.0.1:1/wallet", "tests")
    with pytest.raises(TemporaryError):
        await DeadLetterRetention(engine, 30).run_once()
    await engine.dispose()
