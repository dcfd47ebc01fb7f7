"""Settings of a server under which a crash may lose committed transactions."""

from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import create_engine
from common.postgres.raw_sql import PING, raw_connection


async def test_a_server_whose_commits_do_not_survive_a_crash_causes_one_warning(database_url: str) -> None:
    warnings: list[str] = []
    engine = create_engine(database_url, "tests", pool_size=2)
    tell_unsafe_settings(engine, warnings.append)
    async with raw_connection(engine) as connection:
        async with engine.connect() as other:
            await other.execute(PING)
        is_unsafe = await connection.fetchval("SHOW fsync") == "off"
    assert [text.split()[0] for text in warnings] == ["fsync"] * is_unsafe
    await engine.dispose()
