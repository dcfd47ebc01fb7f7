from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.operations import inspection
from outbox_relay.operations import replay as replaying
from outbox_relay.operations.replay import Selection
from support.outboxes import Outbox, drain
from support.relay_pipeline import RelayPipeline


async def replay(operator: AsyncEngine, selection: Selection) -> list[int]:
    return [row_id async for ids in replaying.replay(operator, selection) for row_id in ids]


async def test_a_replay_publishes_the_selected_wallet_again_in_its_order(pipeline: RelayPipeline) -> None:
    chosen, other = uuid4(), uuid4()
    for _ in range(3):
        await pipeline.write(chosen, 2)
        await pipeline.write(other, 2)
    relay = pipeline.new_relay()
    await drain(relay)
    first = {row["id"]: row["kafka_offset"] for row in await pipeline.rows() if row["aggregate_id"] == chosen}
    assert await replay(pipeline.operator, Selection(wallet_id=chosen)) == list(first)
    assert await drain(relay) == 6
    own = [dict(m.headers() or [])["ce_id"] for m in pipeline.read_topic() if m.key() == str(chosen).encode()]
    assert own[:6] == own[6:]
    assert len(own) == 12
    again = {row["id"]: row["kafka_offset"] for row in await pipeline.rows() if row["aggregate_id"] == chosen}
    assert all(again[row_id] > offset for row_id, offset in first.items())


async def test_a_replay_publishes_in_the_epoch_of_now(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4())
    relay = pipeline.new_relay()
    await drain(relay)
    async with pipeline.engine.begin() as connection:
        await connection.execute(text("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (2, 'test')"))
    await replay(pipeline.operator, Selection())
    await drain(relay)
    assert [dict(message.headers() or [])["ce_sourceepoch"] for message in pipeline.read_topic()] == [b"1", b"2"]
    assert [row["source_epoch"] for row in await pipeline.rows()] == [2]


async def test_a_replay_reaches_rows_below_the_low_water(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4(), 5)
    relay = pipeline.new_relay()
    await drain(relay)
    async with pipeline.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox_lanes SET low_water = 5"))
    assert len(await replay(pipeline.operator, Selection(from_id=1))) == 5
    assert await drain(relay) == 5


async def test_a_replay_selects_by_id_type_and_time_and_leaves_pending_rows_alone(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4(), 6)
    await drain(pipeline.new_relay())
    await pipeline.write(uuid4(), 2)
    rows = await pipeline.rows()
    ids = [row["id"] for row in rows]
    count = replaying.count_replayable
    assert await count(pipeline.operator, Selection()) == (6, ids[0], ids[5])
    assert await count(pipeline.operator, Selection(from_id=ids[1], to_id=ids[3])) == (3, ids[1], ids[3])
    assert (await count(pipeline.operator, Selection(event_type="OTHER")))[0] == 0
    assert (await count(pipeline.operator, Selection(created_to=rows[0]["created_at"])))[0] == 0
    assert (await count(pipeline.operator, Selection(created_from=rows[0]["created_at"])))[0] == 6


async def test_a_replay_leaves_an_audit_row(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4(), 2)
    await drain(pipeline.new_relay())
    _ = [ids async for ids in replaying.replay(pipeline.operator, Selection(from_id=1), reason="drill")]
    async with pipeline.engine.connect() as connection:
        audit = (await connection.execute(text("SELECT * FROM wallet.outbox_audit"))).mappings().one()
    assert audit["action"] == "replay"
    assert audit["selection"] == {"from_id": 1}
    assert audit["row_count"] == 2
    assert audit["reason"] == "drill"
    assert audit["actor"]


async def test_status_counts_what_is_pending_and_parked(pipeline: RelayPipeline) -> None:
    await pipeline.write(uuid4(), 1, f'{{"too": "{"x" * 2_000_000}"}}')
    await drain(pipeline.new_relay())
    await pipeline.write(uuid4(), 3)
    found = await inspection.status(pipeline.operator)
    assert (found["pending"], found["parked"], found["parked_wallets"]) == (3, 1, 1)
    assert found["oldest_pending_seconds"] >= 0


async def test_a_row_is_shown_by_its_id_and_by_its_event_id(outbox: Outbox, operator: AsyncEngine) -> None:
    await outbox.write(uuid4(), 2, '{"a": 1}')
    row = (await outbox.rows())[1]
    for name in (str(row["id"]), str(row["event_id"])):
        shown = await inspection.show_row(operator, name)
        assert shown is not None
        assert shown["id"] == row["id"]
        assert shown["payload"] == {"a": 1}
    assert await inspection.show_row(operator, "999999") is None
    assert await inspection.show_row(operator, "9" * 30) is None
