from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from common.identifiers import LANES
from common.postgres.raw_sql import raw_connection
from outbox_relay import leases
from support.outboxes import drain
from support.relay_pipeline import RelayPipeline


async def test_under_an_old_snapshot_a_claim_does_not_read_past_what_was_published(
    pipeline: RelayPipeline, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """Vacuum can remove nothing, and only the low water skips the dead index entries."""
    relay, wallet = pipeline.new_relay(), uuid4()

    async def blocks_read() -> int:
        async with raw_connection(pipeline.relay) as connection:
            found = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {leases.CLAIM_LANES.sql}", LANES
            )
        return int(found[0]["Plan"]["Shared Hit Blocks"]) + int(found[0]["Plan"]["Shared Read Blocks"])

    async with pipeline.engine.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        await reader.execute(text("SELECT count(*) FROM wallet.outbox"))

        at_first = await blocks_read()

        for _ in range(9):
            await pipeline.write(wallet, 1000)
            await drain(relay)

        async def low_water_is_near() -> bool:
            # An id is safe half a second after it was taken, and the next batch raises the low water.
            await pipeline.write(wallet)
            await drain(relay)
            async with pipeline.engine.connect() as connection:
                query = text("SELECT max(low_water) > max(id) - 3000 FROM wallet.outbox, wallet.outbox_lanes")
                return bool(await connection.scalar(query))

        await eventually(low_water_is_near, 60)
        more_with_low_water = await blocks_read() - at_first
        async with pipeline.engine.begin() as connection:
            await connection.execute(text("UPDATE wallet.outbox_lanes SET low_water = 0"))
        assert await blocks_read() - at_first > 2 * more_with_low_water
