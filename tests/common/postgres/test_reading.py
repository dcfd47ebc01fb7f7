"""A snapshot shows one moment and writes nothing; rows come all at once, or in chunks from a cursor."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres import reading
from common.postgres.reading import (
    fetch_all,
    fetch_one,
    fetch_value,
    read_only_snapshot,
    stream_chunks,
    stream_rows,
)

NUMBERS = text("SELECT number FROM generate_series(1, cast(:last AS integer)) AS number")
EPOCHS = text("SELECT count(*) FROM wallet.source_epochs")
WRITE = text("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (7, 'test')")
SETTINGS = text("""
    SELECT current_setting('transaction_read_only') AS read_only, current_setting('transaction_isolation') AS isolation
""")


async def test_writing_through_a_snapshot_is_refused(database_url: str) -> None:
    with pytest.raises(RuntimeError, match="only reads"):
        async with read_only_snapshot(database_url, "tests") as connection:
            await connection.execute(WRITE)


async def test_all_statements_of_a_snapshot_see_one_moment(database_url: str, engine: AsyncEngine) -> None:
    async with read_only_snapshot(database_url, "tests", before=text("SET LOCAL work_mem = '8MB'")) as connection:
        before = await fetch_value(connection, EPOCHS)
        async with engine.begin() as writer:
            await writer.execute(WRITE)
        assert await fetch_value(connection, EPOCHS) == before
        assert await fetch_value(connection, text("SELECT current_setting('work_mem')")) == "8MB"
        assert dict(await fetch_one(connection, SETTINGS)) == {"read_only": "on", "isolation": "repeatable read"}


async def test_rows_are_the_same_at_once_one_by_one_and_in_chunks(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK_ROWS", 4)
    async with engine.connect() as connection:
        expected = list(range(1, 11))
        assert [row.number for row in await fetch_all(connection, NUMBERS, last=10)] == expected
        assert [row.number async for row in stream_rows(connection, NUMBERS, last=10)] == expected
        chunks = [[row.number for row in rows] async for rows in stream_chunks(connection, NUMBERS, last=10)]
        assert chunks == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
