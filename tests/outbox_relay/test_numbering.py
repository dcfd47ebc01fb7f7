"""Outbox ids that don't rise, as after a cut-over to a logical replica, or after a dump restored in parts."""

import asyncio
from collections import defaultdict
from random import Random
from uuid import UUID, uuid4

import pytest
from sqlalchemy import RowMapping, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.sequences import raise_sequences
from common.tables.roles import Role
from common.worker import Health, TemporaryError
from outbox_relay.numbering import HEALTH_CHECK, Numbering, renumber
from outbox_relay.operations import inspection
from support.outboxes import Outbox, drain
from support.relay_pipeline import RelayPipeline
from support.roles import Roles


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def set_back(engine: AsyncEngine, next_id: int = 1) -> None:
    """Reset the sequence, as on a logical replica, to which sequences are not replicated."""
    await run(engine, f"SELECT setval('wallet.outbox_id_seq', {next_id}, false)")


def by_wallet(rows: list[RowMapping]) -> dict[UUID, list[RowMapping]]:
    found: dict[UUID, list[RowMapping]] = defaultdict(list)
    for row in rows:
        found[row["aggregate_id"]].append(row)
    return found


async def test_events_below_the_low_water_of_a_sequence_that_went_back_are_published(pipeline: RelayPipeline) -> None:
    wallet = uuid4()
    await pipeline.write(wallet, 5)
    await drain(pipeline.new_relay())
    await run(pipeline.engine, "UPDATE wallet.outbox_lanes SET low_water = 5", "DELETE FROM wallet.outbox")
    await set_back(pipeline.engine)
    await pipeline.write(wallet, 2)
    status = await inspection.status(pipeline.operator)
    assert (status["pending"], status["stranded"], status["sequence_behind"]) == (2, 2, 3)
    relay = pipeline.new_relay()
    assert await drain(relay) == 3
    rows = await pipeline.rows()
    assert all(row["published_at"] and row["id"] > 5 for row in rows)
    await pipeline.write(wallet)
    assert (await pipeline.rows())[-1]["id"] == rows[-1]["id"] + 1
    status = await inspection.status(pipeline.operator)
    assert (status["stranded"], status["sequence_behind"]) == (0, 0)
    assert relay._health.checks[HEALTH_CHECK] == "ok"


async def test_events_with_ids_below_pending_ones_are_published_behind_them(pipeline: RelayPipeline) -> None:
    """A wallet's later event has the lower id: in the order of ids it would be published first."""
    wallet, other = uuid4(), uuid4()
    await pipeline.write(other, 5)
    await drain(pipeline.new_relay())
    await pipeline.write(wallet, 3)
    await run(pipeline.engine, "DELETE FROM wallet.outbox WHERE published_at IS NOT NULL")
    await set_back(pipeline.engine)
    await pipeline.write(wallet, 2)
    in_order = sorted(await pipeline.rows(), key=lambda row: row["created_at"])
    assert [row["id"] for row in in_order][-2:] == [1, 2]
    await drain(pipeline.new_relay())
    published = [
        dict(message.headers() or [])["ce_id"].decode()  # type: ignore[union-attr]
        for message in pipeline.read_topic()
        if message.key() == str(wallet).encode()
    ]
    assert published == [str(row["event_id"]) for row in in_order]


async def test_a_sequence_behind_existing_rows_does_not_stop_the_money_for_long(pipeline: RelayPipeline) -> None:
    wallet = uuid4()
    await pipeline.write(wallet, 3)
    await set_back(pipeline.engine)
    with pytest.raises(IntegrityError):
        await pipeline.write(wallet)
    await pipeline.new_relay().run_once()
    await pipeline.write(wallet)
    *old, new = [row["id"] for row in sorted(await pipeline.rows(), key=lambda row: row["created_at"])]
    assert new > max(old)


async def test_a_row_below_the_low_water_of_a_sequence_that_has_caught_up_is_found(pipeline: RelayPipeline) -> None:
    wallet = uuid4()
    await pipeline.write(wallet, 2)
    await run(pipeline.engine, "UPDATE wallet.outbox_lanes SET low_water = 2")
    await pipeline.write(wallet)
    relay = pipeline.new_relay()
    assert [row["id"] for row in await pipeline.rows()] == [1, 2, 3]
    await Numbering(pipeline.relay, Health()).run_once()
    assert [row["id"] for row in await pipeline.rows()] == [4, 5, 6]
    assert await drain(relay) == 3


@pytest.mark.parametrize("seed", range(8))
async def test_renumbering_strands_no_row_and_keeps_each_wallets_order(
    outbox: Outbox, engine: AsyncEngine, relay_engine: AsyncEngine, operator: AsyncEngine, seed: int
) -> None:
    draw = Random(seed)
    wallets = [uuid4() for _ in range(4)]
    for _ in range(30):
        await outbox.write(draw.choice(wallets))
    settled = draw.randrange(1, 25)
    await run(
        engine,
        f"""UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id
            WHERE id <= {settled} AND id % {draw.choice([1, 2])} = 0""",
        f"UPDATE wallet.outbox SET parked_at = now() WHERE published_at IS NULL AND id % {draw.choice([5, 99])} = 0",
        f"""UPDATE wallet.outbox_lanes SET low_water = {draw.choice([0, settled])}
            WHERE NOT EXISTS (
                SELECT FROM wallet.outbox WHERE outbox.lane = outbox_lanes.lane AND id <= {settled}
                    AND published_at IS NULL
            )""",
        "DELETE FROM wallet.outbox WHERE published_at IS NOT NULL",
    )
    await set_back(engine)
    free = min((row["id"] for row in await outbox.rows()), default=30) - 1
    for _ in range(min(free, 10)):
        await outbox.write(draw.choice(wallets))
    before = {row["event_id"]: {**row, "id": 0} for row in await outbox.rows()}
    await renumber(relay_engine)
    rows = await outbox.rows()
    assert {row["event_id"]: {**row, "id": 0} for row in rows} == before
    assert (await inspection.status(operator))["stranded"] == 0
    for own in by_wallet(rows).values():
        assert own == sorted(own, key=lambda row: row["created_at"])
    await outbox.write(wallets[0])
    assert (await outbox.rows())[-1]["created_at"] == max(row["created_at"] for row in await outbox.rows())


async def test_renumbering_beside_writers_and_relays_loses_no_row_and_keeps_the_order(pipeline: RelayPipeline) -> None:
    wallets = [uuid4() for _ in range(6)]
    await pipeline.write(wallets[0], 500)
    await drain(pipeline.new_relay())
    await run(pipeline.engine, "UPDATE wallet.outbox_lanes SET low_water = 500", "DELETE FROM wallet.outbox")
    await set_back(pipeline.engine)

    async def write(wallet: UUID) -> None:
        for _ in range(40):
            await pipeline.write(wallet)

    writing = asyncio.gather(*map(write, wallets))
    relays = [pipeline.new_relay() for _ in range(2)]
    while not writing.done():
        for relay in relays:
            await relay.run_once()
    await writing
    # A relay reads the sequence every half second. Until then rows may be below the low water.
    async with asyncio.timeout(20):
        while any(row["published_at"] is None for row in await pipeline.rows()):
            await relays[0].run_once()
    rows = await pipeline.rows()
    assert len(rows) == 240
    assert all(row["id"] > 500 for row in rows)
    order = {str(row["event_id"]): row["created_at"] for row in rows}
    for wallet in wallets:
        times = [
            order[event_id]
            for message in pipeline.read_topic()
            if message.key() == str(wallet).encode()
            and (event_id := dict(message.headers() or [])["ce_id"].decode()) in order  # type: ignore[union-attr]
        ]
        assert times == sorted(times)
        assert len(times) == 40


async def test_a_relay_that_may_not_set_the_sequence_waits_and_says_what_to_run(
    outbox: Outbox, engine: AsyncEngine, database_url: str
) -> None:
    await outbox.write(uuid4(), 3)
    await set_back(engine)
    role = f"relay_{uuid4().hex}"
    await run(
        engine,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT USAGE ON SCHEMA wallet TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wallet TO {role}",
    )
    url = make_url(database_url).set(username=role, password="x")
    limited = create_engine(url.render_as_string(hide_password=False), "tests")
    try:
        with pytest.raises(TemporaryError, match="walletctl db migrate"):
            await Numbering(limited, Health()).renumber()
    finally:
        await limited.dispose()
        await run(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("schema", "insert"),
    [
        (
            "wallet",
            "INSERT INTO wallet.outbox_audit (actor, action, selection, row_count) VALUES ('a', 'b', '{}', 0)",
        ),
        (
            "history",
            """INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, headers, reason, detail)
               SELECT 't', 0, coalesce(max(id), 0), 'x', '[]', 'r', 'd' FROM history.dead_letters""",
        ),
    ],
)
async def test_migrating_raises_every_sequence_that_is_behind(
    engine: AsyncEngine, database_url: str, roles: Roles, schema: str, insert: str
) -> None:
    table = insert.split()[2]
    await run(engine, insert, insert, f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)")
    async with roles.engine(database_url, Role.OWNER) as owner, owner.begin() as connection:
        assert await raise_sequences(connection, schema) == [table]
        assert await raise_sequences(connection, schema) == []
    await run(engine, insert)
