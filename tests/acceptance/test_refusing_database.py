"""A database that refuses: the processes wait, report the cause, and continue by themselves afterwards."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from httpx import AsyncClient
from sqlalchemy.engine import make_url

from common.worker import Health
from history_consumer.read_api.app import create_app as create_history_app
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.run import relay_until
from outbox_relay.settings import RelaySettings
from support.applications import client_of
from support.databases import migrate_all
from support.roles import Roles, new_roles
from support.servers import Server
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings
from walletctl.stack.ports import PortReservations
from walletctl.stack.postgres import Postgres
from walletctl.stack.readiness import PostgresProbe
from walletctl.stack.specs import DATABASE_ROLES

pytestmark = pytest.mark.timeout(120)

Eventually = Callable[..., Awaitable[Any]]
HEALED_SECONDS_MAX = 15.0
"""The promised seconds, and a margin for a busy machine."""

END_SESSIONS = """
    SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = '{role}'
"""
REFUSALS = {
    "read-only": (
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} RESET default_transaction_read_only",
        "read-only",
    ),
    "no login": ("ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN", "login"),
    "no connect": (
        "REVOKE CONNECT ON DATABASE {database} FROM {groups}",
        "GRANT CONNECT ON DATABASE {database} TO {groups}",
        "privilege",
    ),
    "no privilege": (
        "REVOKE {groups} FROM {role}",
        "GRANT {groups} TO {role}",
        "privilege",
    ),
    "no tables": (
        "ALTER SCHEMA wallet RENAME TO hidden; ALTER SCHEMA history RENAME TO hidden_too",
        "ALTER SCHEMA hidden RENAME TO wallet; ALTER SCHEMA hidden_too RENAME TO history",
        "walletctl db migrate",
    ),
}


@dataclass
class Database:
    """A migrated database, a login that is a member of the processes' roles, and an operator's connection."""

    url: str
    role: str
    groups: str
    operator: asyncpg.Connection

    async def do(self, statement: str) -> None:
        database = make_url(self.url).database
        await self.operator.execute(statement.format(role=self.role, groups=self.groups, database=database))


@asynccontextmanager
async def database_with_role(url: str, roles: Roles) -> AsyncIterator[Database]:
    await roles.grant(url)
    operator = await asyncpg.connect(url)
    role = f"app_{uuid4().hex}"
    groups = ", ".join(roles.names[role] for role in DATABASE_ROLES.values())
    await operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first'")
    await operator.execute(f"GRANT {groups} TO {role}")
    try:
        mine = make_url(url).set(username=role, password="first")
        yield Database(mine.render_as_string(hide_password=False), role, groups, operator)
    finally:
        await operator.execute(END_SESSIONS.format(role=role))
        await operator.execute(f"DROP ROLE {role}")
        await operator.close()


@pytest.fixture
async def database(database_url: str, roles: Roles) -> AsyncIterator[Database]:
    async with database_with_role(database_url, roles) as database:
        yield database


async def create(api: AsyncClient) -> int:
    answer = await api.post("/wallets", json={"user_id": "ada", "currency": "EUR"})
    assert answer.status_code == 201 or answer.headers["retry-after"] == "1", answer.text
    return answer.status_code


async def assert_refused_and_healed(
    api: AsyncClient, database: Database, refusal: tuple[str, str, str], eventually: Eventually
) -> None:
    statement, undo, told = refusal

    async def is_refused() -> bool:
        ready = await api.get("/ready")
        return await create(api) == 503 and ready.status_code == 503 and told in ready.text

    async def is_healed() -> bool:
        return (await api.get("/ready")).status_code == 200

    async def all_are_served() -> bool:
        return set(await asyncio.gather(*(create(api) for _ in range(30)))) == {201}

    await eventually(all_are_served)
    await database.do(statement)
    # As a failover does. New sessions are refused.
    await database.do(END_SESSIONS)
    await eventually(is_refused)
    await database.do(undo)
    await eventually(is_healed, HEALED_SECONDS_MAX)
    await eventually(all_are_served, HEALED_SECONDS_MAX)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_while_the_database_refuses_the_wallet_api_says_503_and_why_and_heals_by_itself(
    database: Database, refusal: tuple[str, str, str], eventually: Eventually
) -> None:
    settings = WalletApiSettings(auth="none", database_url=database.url, log_level="error")
    async with client_of(create_app(settings)) as api:
        await assert_refused_and_healed(api, database, refusal, eventually)


async def test_after_a_password_was_rotated_there_and_back_the_wallet_api_heals_by_itself(
    tmp_path: Path, eventually: Eventually
) -> None:
    """On a server of its own, because the other tests' server may ask for no password."""
    with closing(PortReservations()) as reservations:
        (port,) = reservations.choose(["refusing"], {}).values()
        postgres = Postgres(tmp_path / "postgres", port, tmp_path / "postgres.log", {"fsync": "off"})
        postgres.prepare()
        server = Server(postgres.launch, PostgresProbe(postgres.url), postgres.log_file)
        server.start()
        try:
            await server.ready()
            roles = new_roles()
            await roles.create(postgres.url)
            await migrate_all(postgres.url)
            async with database_with_role(postgres.url, roles) as database:
                settings = WalletApiSettings(auth="none", database_url=database.url, log_level="error")
                rotated = [f"ALTER ROLE {{role}} PASSWORD '{password}'" for password in ("second", "first")]
                async with client_of(create_app(settings)) as api:
                    await assert_refused_and_healed(api, database, (rotated[0], rotated[1], "login"), eventually)
        finally:
            await server.end(signal.SIGQUIT)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_while_the_database_refuses_relay_and_consumer_wait_and_say_why_and_heal_by_themselves(
    database: Database,
    refusal: tuple[str, str, str],
    eventually: Eventually,
    kafka_bootstrap_servers: str,
    topic: str,
    session_timeout_seconds: float,
) -> None:
    statement, undo, told = refusal
    common: dict[str, Any] = {
        "database_url": database.url,
        "kafka_bootstrap_servers": kafka_bootstrap_servers,
        "kafka_topic": topic,
        "log_level": "error",
    }
    stop, relay, consumer = asyncio.Event(), Health(), Health()
    consumer_settings = ConsumerSettings(
        **common,
        consumer_group=f"history-{topic}",
        consumer_session_timeout_seconds=session_timeout_seconds,
        consumer_check_seconds=0.2,
    )
    working = asyncio.gather(
        relay_until(stop, RelaySettings(**common), relay), consume(consumer_settings, stop, consumer)
    )

    async def are_well() -> bool:
        assert not working.done(), working.exception()
        return relay.checks.get("database") == consumer.checks.get("database") == "ok"

    async def are_refused() -> bool:
        assert not working.done(), working.exception()
        return all(told in health.checks["database"] for health in (relay, consumer))

    async def is_published() -> bool:
        return bool(await database.operator.fetchval("SELECT count(*) = 1 FROM history.wallet_progress"))

    try:
        await eventually(are_well)
        await database.do(statement)
        await database.do(END_SESSIONS)
        await eventually(are_refused)
        await database.do(undo)
        await eventually(are_well, HEALED_SECONDS_MAX)
        async with client_of(
            create_app(WalletApiSettings(auth="none", database_url=database.url, log_level="error"))
        ) as api:
            await create(api)
        await eventually(is_published, HEALED_SECONDS_MAX)
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await working


async def test_the_history_api_reads_where_the_database_is_read_only_and_says_why_it_cannot(
    database: Database, eventually: Eventually
) -> None:
    async with AsyncExitStack() as stack:
        settings = HistoryApiSettings(auth="none", database_url=database.url, log_level="error")
        api = await stack.enter_async_context(client_of(create_history_app(settings)))

        async def ready() -> tuple[int, str]:
            answer = await api.get("/ready")
            return answer.status_code, answer.text

        await database.do(REFUSALS["read-only"][0])
        await database.do(END_SESSIONS)

        async def reads() -> bool:
            return (await api.get("/history/users/ada")).status_code == 200 and (await ready())[0] == 200

        async def is_refused() -> bool:
            answer = await api.get("/history/users/ada")
            assert answer.status_code in {200, 503}
            status, text = await ready()
            return answer.status_code == status == 503 and "privilege" in text

        await eventually(reads)
        await database.do(REFUSALS["no privilege"][0])
        await eventually(is_refused)
        await database.do("ALTER DATABASE {database} RESET default_transaction_read_only")
        await database.do(REFUSALS["no privilege"][1])
        await eventually(reads)
