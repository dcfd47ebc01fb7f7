"""Park, retry and skip: a wallet's order holds through all three."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.errors import LOCK_NOT_AVAILABLE, sqlstate
from outbox_relay.operations import inspection, parking, replay
from outbox_relay.operations.parking import RowStateError
from outbox_relay.relay import Relay
from support.outboxes import Outbox, drain, write_rows
from support.relay_pipeline import RelayPipeline
from support.repetition import repeat

POISON = f'{{"too": "{"x" * 2_000_000}"}}'


async def retry(operator: AsyncEngine, wallet_id: UUID | None, reason: str | None = None) -> list[int]:
    return [row_id async for ids in parking.retry(operator, wallet_id, reason) for row_id in ids]


async def sql(engine: AsyncEngine, statement: str, **parameters: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def audits(engine: AsyncEngine) -> list[RowMapping]:
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT * FROM wallet.outbox_audit ORDER BY id"))).mappings())


async def order_in_topic(pipeline: RelayPipeline, wallet: UUID) -> list[int]:
    """Return the outbox ids of the wallet's records, in the topic's order."""
    ids = {str(row["event_id"]).encode(): row["id"] for row in await pipeline.rows()}
    own = [message for message in pipeline.read_topic() if message.key() == str(wallet).encode()]
    return [ids[dict(message.headers() or [])["ce_id"]] for message in own]  # type: ignore[index]


async def poisoned_wallet(outbox: Outbox, relay: Relay) -> tuple[UUID, list[int]]:
    """Return a wallet and its five row ids: the second event is poison, and all after the first are parked."""
    wallet = uuid4()
    await outbox.write(wallet)
    await outbox.write(wallet, 1, POISON)
    await outbox.write(wallet, 3)
    await drain(relay)
    rows = await outbox.rows()
    assert [row["parked_at"] is not None for row in rows] == [False, True, True, True, True]
    return wallet, [row["id"] for row in rows]


async def test_after_the_cause_is_gone_a_retry_publishes_all_of_the_wallet_in_order(pipeline: RelayPipeline) -> None:
    relay = pipeline.new_relay()
    wallet, ids = await poisoned_wallet(pipeline, relay)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET payload = '{}' WHERE id = :id", id=ids[1])
    assert await retry(pipeline.operator, wallet, "mended") == ids[1:]
    await pipeline.write(wallet, 2)
    await drain(relay)
    rows = await pipeline.rows()
    assert all(row["published_at"] is not None and row["parked_at"] is None for row in rows)
    assert await order_in_topic(pipeline, wallet) == [row["id"] for row in rows]
    (audit,) = await audits(pipeline.engine)
    assert (audit["action"], audit["row_count"], audit["reason"]) == ("retry", 4, "mended")
    assert audit["selection"] == {"wallet_id": str(wallet)}
    assert audit["actor"]


async def test_a_retry_before_the_cause_is_gone_parks_the_wallet_again_and_publishes_nothing(
    pipeline: RelayPipeline,
) -> None:
    relay = pipeline.new_relay()
    wallet, ids = await poisoned_wallet(pipeline, relay)
    assert await retry(pipeline.operator, wallet) == ids[1:]
    await drain(relay)
    assert [row["parked_at"] is not None for row in await pipeline.rows()] == [False, True, True, True, True]
    assert await order_in_topic(pipeline, wallet) == ids[:1]


async def test_after_a_skip_the_later_events_are_published_in_order_and_the_skipped_one_never(
    pipeline: RelayPipeline,
) -> None:
    relay = pipeline.new_relay()
    wallet, ids = await poisoned_wallet(pipeline, relay)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET payload = '{}' WHERE id = :id", id=ids[1])
    await parking.skip(pipeline.operator, ids[1], "test data")
    await drain(relay)
    assert await order_in_topic(pipeline, wallet) == ids[:1]
    assert await retry(pipeline.operator, wallet) == ids[2:]
    await pipeline.write(wallet)
    await drain(relay)
    assert await retry(pipeline.operator, None) == []
    await drain(relay)
    rows = await pipeline.rows()
    assert await order_in_topic(pipeline, wallet) == [ids[0], *ids[2:], rows[-1]["id"]]
    assert [row["id"] for row in rows if row["skipped_at"] is not None] == [ids[1]]
    found = await inspection.status(pipeline.operator)
    assert (found["pending"], found["parked"], found["parked_wallets"]) == (0, 0, 0)
    skipped = await inspection.list_rows(pipeline.operator, "skipped", replay.Selection(), 10)
    assert [row["id"] for row in skipped] == [ids[1]]
    actions = [
        (audit["action"], audit["selection"], audit["row_count"], audit["reason"])
        for audit in await audits(pipeline.engine)
    ]
    assert actions == [
        ("skip", {"id": ids[1]}, 1, "test data"),
        ("retry", {"wallet_id": str(wallet)}, 3, None),
        ("retry", {"all": True}, 0, None),
    ]


async def test_retried_rows_below_the_low_water_are_published(pipeline: RelayPipeline) -> None:
    relay = pipeline.new_relay()
    wallet, ids = await poisoned_wallet(pipeline, relay)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET payload = '{}' WHERE id = :id", id=ids[1])
    await sql(pipeline.engine, "UPDATE wallet.outbox_lanes SET low_water = (SELECT max(id) FROM wallet.outbox)")
    await retry(pipeline.operator, wallet)
    assert await drain(relay) == 4


async def test_an_operator_parks_a_pending_event_and_with_it_only_the_later_ones_of_its_wallet(
    pipeline: RelayPipeline,
) -> None:
    wallet, other, relay = uuid4(), uuid4(), pipeline.new_relay()
    await pipeline.write(wallet, 3)
    await pipeline.write(other, 2)
    ids = [row["id"] for row in await pipeline.rows()]
    await parking.park(pipeline.operator, ids[1], "looks wrong")
    await drain(relay)
    rows = await pipeline.rows()
    assert [row["parked_at"] is not None for row in rows] == [False, True, True, False, False]
    assert rows[1]["last_error"] == "parked by an operator: looks wrong"
    assert [audit["action"] for audit in await audits(pipeline.engine)] == ["park"]
    await retry(pipeline.operator, wallet)
    await drain(relay)
    assert await order_in_topic(pipeline, wallet) == ids[:3]


async def test_rows_that_are_parked_during_a_retry_are_retried_by_it(
    pipeline: RelayPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they would stay parked for ever, behind no parked row."""
    monkeypatch.setattr(parking, "_CHUNK_ROWS_MAX", 2)
    relay = pipeline.new_relay()
    wallet, ids = await poisoned_wallet(pipeline, relay)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET payload = '{}' WHERE id = :id", id=ids[1])
    chunks = parking.retry(pipeline.operator, wallet)
    assert await anext(chunks) == ids[1:3]
    await pipeline.write(wallet)
    await drain(relay)
    late = (await pipeline.rows())[-1]
    assert late["parked_at"] is not None
    assert [row_id async for chunk in chunks for row_id in chunk] == [*ids[3:], late["id"]]
    await drain(relay)
    assert await order_in_topic(pipeline, wallet) == [*ids, late["id"]]


async def test_a_retry_without_a_wallet_is_of_all_wallets(pipeline: RelayPipeline) -> None:
    for _ in range(3):
        await pipeline.write(uuid4(), 2)
    await sql(pipeline.engine, "UPDATE wallet.outbox SET parked_at = now()")
    assert await parking.count_parked(pipeline.operator, None) == (6, 3)
    assert sorted(await retry(pipeline.operator, None)) == [row["id"] for row in await pipeline.rows()]
    assert await drain(pipeline.new_relay()) == 6


async def test_a_row_in_another_state_is_refused_and_no_audit_row_is_written(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4())
    (row,) = await pipeline.rows()
    with pytest.raises(RowStateError, match="not parked"):
        await parking.skip(pipeline.operator, row["id"], "no")
    await drain(pipeline.new_relay())
    with pytest.raises(RowStateError, match="not pending"):
        await parking.park(pipeline.operator, row["id"], "no")
    with pytest.raises(RowStateError, match="doesn't exist"):
        await parking.park(pipeline.operator, 4711, "no")
    assert await audits(pipeline.engine) == []


async def write_parked(engine: AsyncEngine, wallet: UUID) -> None:
    """Write two events, of which the first is parked before a relay sees it."""
    async with engine.begin() as connection:
        await write_rows(connection, wallet, 2)
        first = text("SELECT max(id) - 1 FROM wallet.outbox WHERE aggregate_id = :wallet")
        row_id = await connection.scalar(first, {"wallet": wallet})
        await connection.execute(text("UPDATE wallet.outbox SET parked_at = now() WHERE id = :id"), {"id": row_id})


async def test_a_wallet_keeps_its_order_while_relays_writers_and_operators_work_at_the_same_time(
    pipeline: RelayPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are parked and retried repeatedly, in small chunks. All are published, each wallet's in order."""
    monkeypatch.setattr(parking, "_CHUNK_ROWS_MAX", 3)
    wallets, done = [uuid4() for _ in range(3)], asyncio.Event()
    relays = [pipeline.new_relay(relay_batch_rows=20) for _ in range(2)]
    works: list[Callable[[], Awaitable[object]]] = [relay.run_once for relay in relays]
    works.append(partial(retry, pipeline.operator, None))
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(repeat(work, done))
        for number in range(60):
            await pipeline.write(wallets[number % 3], 2)
            await write_parked(pipeline.engine, wallets[number % 3])
        done.set()
    assert sum(audit["row_count"] > 0 for audit in await audits(pipeline.engine)) > 0
    await drain(relays[0])
    await retry(pipeline.operator, None)
    assert (await inspection.status(pipeline.operator))["parked"] == 0
    await drain(relays[0])
    rows = await pipeline.rows()
    assert all(row["published_at"] is not None for row in rows)
    for wallet in wallets:
        own = [row["id"] for row in rows if row["aggregate_id"] == wallet]
        assert await order_in_topic(pipeline, wallet) == own


async def test_while_a_relay_holds_the_lane_no_operator_parks_skips_or_retries_in_it(
    outbox: Outbox, engine: AsyncEngine, operator: AsyncEngine, operator_url: str
) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 2)
    first, second = [row["id"] for row in await outbox.rows()]
    await parking.park(operator, first, "held")
    impatient = create_engine(operator_url, "tests", lock_timeout_seconds=0.01)
    async with engine.connect() as relay, relay.begin():
        await relay.execute(text("SELECT FROM wallet.outbox_lanes FOR UPDATE"))
        works = parking.park(impatient, second, "x"), parking.skip(impatient, first, "x"), retry(impatient, wallet)
        ended = await asyncio.gather(*works, return_exceptions=True)
    await impatient.dispose()
    assert [sqlstate(error) for error in ended if isinstance(error, DBAPIError)] == [LOCK_NOT_AVAILABLE] * 3
    assert [(row["parked_at"] is None, row["skipped_at"]) for row in await outbox.rows()] == [
        (False, None),
        (True, None),
    ]
