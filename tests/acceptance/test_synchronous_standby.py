"""A primary and its synchronous standby: a visible commit is replicated, even if its client gave up waiting."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.models import AnyEvent
from common.identifiers import new_id
from common.postgres.connections import OUTCOME_UNKNOWN, is_outcome_unknown
from common.postgres.engine import create_engine
from common.postgres.grants import USUAL_NAMES
from common.postgres.raw_sql import raw_connection
from common.tables.roles import Role
from common.worker import Health, TemporaryError
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.settings import ConsumerSettings
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.settings import RelaySettings
from support.applications import client_of
from support.databases import migrate_all, run_sql, with_database
from support.history_events import Topic, Wallet
from support.outboxes import Outbox
from support.roles import Roles
from tools.servers import running
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings
from walletctl.stack.launch import run_step
from walletctl.stack.ports import PortReservations
from walletctl.stack.postgres import Postgres, binaries
from walletctl.stack.readiness import PostgresProbe

pytestmark = pytest.mark.timeout(300)

Eventually = Callable[..., Awaitable[Any]]
ROLES = Roles(USUAL_NAMES)
"""The processes' logins to the primary."""
CANCELLED = "canceling (the )?wait for synchronous replication"
# Past client_connection_check_interval, and past the timeouts that these tests give their sessions.
WATCHED_SECONDS = 2.5
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"


@dataclass
class Pair:
    """A primary, its synchronous standby, a database of the test's own on both, and an engine on the primary's."""

    primary: Postgres
    standby: Postgres
    standby_pid: int
    url: str
    engine: AsyncEngine
    log_begin: int
    """Where the test's own lines begin in the primary's log."""

    async def ask(self, statement: str) -> Any:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    @property
    def cancelled(self) -> bool:
        return re.search(CANCELLED, self.primary.log_file.read_text()[self.log_begin :]) is not None

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """Stop all processes of the standby, or resume them (SIGCONT)."""
        server = psutil.Process(self.standby_pid)
        for process in [server, *server.children(recursive=True)]:
            os.kill(process.pid, number)

    async def until_waiting(self, eventually: Eventually) -> None:
        """Wait until a COMMIT waits for the standby."""
        await eventually(lambda: self.ask(WAITING), 60)

    async def assert_invisible_then_visible(self, eventually: Eventually, visible: str) -> None:
        """Check that `visible`, a statement, is false while the standby is frozen, and becomes true afterwards."""
        until = time.monotonic() + WATCHED_SECONDS
        while time.monotonic() < until:
            assert not await self.ask(visible)
            assert await self.ask(WAITING)
            await asyncio.sleep(0.1)
        assert not self.cancelled
        self.freeze(signal.SIGCONT)
        await eventually(lambda: self.ask(visible))
        assert not self.cancelled


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Postgres, int]]:
    """A primary with a migrated database, its synchronous standby, and the standby's process id."""
    directory = tmp_path_factory.mktemp("pair")
    with closing(PortReservations()) as reservations:
        ports = reservations.choose(["primary", "standby"], {})
        settings = {"fsync": "off", "shared_buffers": "32MB"}
        primary = Postgres(directory / "primary", ports["primary"], directory / "primary.log", settings)
        primary.prepare()
        with running(primary.launch(), primary.log_file, PostgresProbe(primary.url), signal.SIGQUIT):
            standby = copied(primary, directory / "standby", ports["standby"])
            probe = PostgresProbe(standby.url)
            with running(standby.launch(), standby.log_file, probe, signal.SIGQUIT) as process:
                asyncio.run(prepared(primary.url))
                yield primary, standby, process.pid


async def prepared(url: str) -> None:
    """Migrate the database, make the roles, and let commits wait for the standby."""
    await ROLES.create(url)
    await migrate_all(url)
    await ROLES.grant(url)
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    await connection.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(20):
        while not await connection.fetchval("SELECT sync_state = 'sync' FROM pg_stat_replication"):
            await asyncio.sleep(0.02)
    await connection.close()


def copied(primary: Postgres, data_dir: Path, port: int) -> Postgres:
    command = [binaries() / "pg_basebackup", f"--dbname={primary.url}", "--checkpoint=fast", "--no-sync"]
    run_step("pg_basebackup", primary._as_server([*map(str, command), f"--pgdata={data_dir}"], signal.SIGTERM))
    login = f"user=postgres password={primary.password}"
    place = f"host=127.0.0.1 port={primary.port} {login} application_name=standby"
    settings = {"fsync": "off", "shared_buffers": "32MB", "primary_conninfo": place}
    standby = Postgres(data_dir, port, data_dir.with_suffix(".log"), settings)
    (data_dir / "standby.signal").touch()
    # The copy has the primary's password.
    data_dir.with_name(f"{data_dir.name}.password").write_text(primary.password)
    standby.prepare()
    return standby


@pytest.fixture
async def pair(servers: tuple[Postgres, Postgres, int]) -> AsyncIterator[Pair]:
    primary, standby, standby_pid = servers
    name = f"test_{uuid4().hex}"
    await run_sql(with_database(primary.url, "postgres"), f'CREATE DATABASE "{name}" TEMPLATE wallet')
    url = with_database(primary.url, name)
    engine = create_engine(url, "tests", statement_timeout_seconds=0.5, transaction_timeout_seconds=1)
    pair = Pair(primary, standby, standby_pid, url, engine, len(primary.log_file.read_text()))
    try:
        yield pair
    finally:
        pair.freeze(signal.SIGCONT)
        await engine.dispose()


@asynccontextmanager
async def wallet_api(pair: Pair, **settings: Any) -> AsyncIterator[AsyncClient]:
    url = ROLES.url(pair.url, Role.API)
    app = create_app(WalletApiSettings(auth="none", database_url=url, log_level="warning", **settings))
    async with client_of(app) as client:
        yield client


async def new_wallets(api: AsyncClient) -> tuple[str, str]:
    ids = [(await api.post("/wallets", json={"user_id": "ada", "currency": "EUR"})).json()["id"] for _ in range(2)]
    assert (await api.post(f"/wallets/{ids[0]}/fund", json={"amount": "5"})).status_code == 200
    return ids[0], ids[1]


async def says_ready(api: AsyncClient, *, is_ready: bool) -> bool:
    answer = await api.get("/ready")
    return answer.status_code == (200 if is_ready else 503) and is_ready != ("synchronous standbys" in answer.text)


def transferred(wallet_id: str) -> str:
    return (
        f"SELECT (SELECT balance_minor FROM wallet.wallets WHERE id = '{wallet_id}') = 200"
        " OR EXISTS (SELECT FROM wallet.outbox WHERE event_type = 'TRANSFER_DONE')"
    )


@pytest.mark.parametrize("abandoned_by", ["deadline", "shutdown"])
async def test_a_transfer_that_waits_for_a_frozen_standby_is_unknown_and_not_visible_before_it_is_replicated(
    pair: Pair, eventually: Eventually, abandoned_by: str
) -> None:
    async with wallet_api(pair, statement_timeout_seconds=60, transaction_timeout_seconds=60) as patient:
        sender, receiver = await new_wallets(patient)
    path, body = f"/wallets/{sender}/transfer", {"to_wallet_id": receiver, "amount": "3"}
    pair.freeze()
    async with wallet_api(pair, transaction_timeout_seconds=3 if abandoned_by == "deadline" else 60) as api:
        waiting = asyncio.create_task(api.post(path, json=body, headers={"Idempotency-Key": "rent"}))
        await pair.until_waiting(eventually)
        if abandoned_by == "deadline":
            assert (await waiting).status_code == 503
            # While no commit ends, each request leaves a session behind: the API must not be ready.
            await eventually(lambda: says_ready(api, is_ready=False))
    answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await pair.assert_invisible_then_visible(eventually, transferred(sender))
    async with wallet_api(pair) as api:
        await eventually(lambda: says_ready(api, is_ready=True))
        again = await api.post(path, json=body, headers={"Idempotency-Key": "rent"})
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert (await api.get(f"/wallets/{sender}")).json()["balance"] == "2.00"


async def test_a_transfer_that_an_operator_stopped_waiting_for_is_unknown(pair: Pair, eventually: Eventually) -> None:
    """The transfer is visible, but a failover may lose it: a reply of 200 would be wrong."""
    async with wallet_api(pair, statement_timeout_seconds=60, transaction_timeout_seconds=60) as api:
        sender, receiver = await new_wallets(api)
        pair.freeze()
        body = {"to_wallet_id": receiver, "amount": "3"}
        waiting = asyncio.create_task(api.post(f"/wallets/{sender}/transfer", json=body))
        await pair.until_waiting(eventually)
        await pair.ask("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        assert (await waiting).status_code == 503
    assert pair.cancelled


async def test_of_several_hosts_the_one_that_is_wanted_is_taken_and_left_out_one_that_can_write(pair: Pair) -> None:
    async def standbys(wanted: Mapping[str, str], *ports: int) -> int:
        query = {"host": [f"127.0.0.1:{port}" for port in ports], **wanted}
        url = make_url(pair.primary.url).set(host=None, port=None, query=query)
        engine = create_engine(url.render_as_string(hide_password=False), "tests", pool_size=5)
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(raw_connection(engine)) for _ in range(5)]
            found = [await connection.fetchval("SELECT pg_is_in_recovery()") for connection in connections]
        await engine.dispose()
        return sum(found)

    both = (pair.standby.port, pair.primary.port)
    for ports in (both, both[::-1]):
        assert await standbys({}, *ports) == 0
        assert await standbys({"target_session_attrs": "primary"}, *ports) == 0
        assert await standbys({"target_session_attrs": "standby"}, *ports) == 5
        assert await standbys({"target_session_attrs": "prefer-standby"}, *ports) == 5
    assert await standbys({"target_session_attrs": "prefer-standby"}, both[1], both[1]) == 0


async def test_no_timeout_of_the_session_ends_a_commit(pair: Pair, eventually: Eventually) -> None:
    async def write() -> None:
        async with raw_connection(pair.engine) as connection:
            await connection.execute("BEGIN; INSERT INTO wallet.source_epochs (epoch, actor) VALUES (7, 'test')")
            await connection.execute("COMMIT")

    pair.freeze()
    writing = asyncio.create_task(write())
    await pair.until_waiting(eventually)
    await pair.assert_invisible_then_visible(
        eventually, "SELECT EXISTS (SELECT FROM wallet.source_epochs WHERE epoch = 7)"
    )
    await writing


async def test_what_a_relay_settles_is_not_visible_before_it_is_replicated(
    pair: Pair, eventually: Eventually, kafka_bootstrap_servers: str, topic: str
) -> None:
    url = ROLES.url(pair.url, Role.RELAY)
    settings = RelaySettings(database_url=url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=topic)
    engine = create_engine(url, "outbox-relay")
    relay = Relay(settings, engine, Publisher(settings), Health(), AdaptiveBatching(0, settings.relay_batch_rows))
    await Outbox(pair.engine).write(new_id(), 3)
    pair.freeze()
    relaying = asyncio.create_task(relay.run_once())
    await pair.until_waiting(eventually)
    relaying.cancel()
    await asyncio.wait({relaying})
    await pair.assert_invisible_then_visible(
        eventually, "SELECT EXISTS (SELECT FROM wallet.outbox WHERE published_at IS NOT NULL)"
    )
    await engine.dispose()


async def test_what_a_consumer_applies_is_not_visible_before_it_is_replicated_and_is_applied_once(
    pair: Pair, eventually: Eventually, kafka_bootstrap_servers: str, topic: str
) -> None:
    url = ROLES.url(pair.url, Role.CONSUMER)
    settings = ConsumerSettings(
        database_url=url,
        kafka_bootstrap_servers=kafka_bootstrap_servers,
        kafka_topic=topic,
        consumer_group=f"history-{topic}",
        consumer_transaction_timeout_seconds=1,
    )
    engine = create_engine(url, "history-consumer")
    consumer = HistoryConsumer(settings, engine, Health())

    async def has_stepped() -> bool:
        try:
            await consumer.run_once()
        except TemporaryError:
            return False
        return True

    async def has_partitions() -> bool:
        return await has_stepped() and bool(consumer.assignment.held)

    await eventually(has_partitions)
    wallet = Wallet()
    events: list[AnyEvent] = [wallet.created(), wallet.funded(), wallet.funded()]
    pair.freeze()
    Topic(kafka_bootstrap_servers, topic).produce(*events)

    async def abandoned() -> bool:
        return not await has_stepped() and bool(await pair.ask(WAITING))

    await eventually(abandoned)
    await pair.assert_invisible_then_visible(eventually, "SELECT EXISTS (SELECT FROM history.transaction_events)")
    # The first step finds the commit; nothing is left to do then.
    await eventually(has_stepped)
    assert await pair.ask("SELECT sum(next_offset) FROM history.processed_offsets") == len(events)
    assert await pair.ask("SELECT count(*) FROM history.transaction_events") == len(events)
    await consumer.close()
    await engine.dispose()


async def parked_row(pair: Pair) -> int:
    await Outbox(pair.engine).write(UUID(int=7))
    row_id: int = await pair.ask("SELECT max(id) FROM wallet.outbox")
    return row_id


async def test_an_operators_command_that_is_interrupted_in_its_commit_says_that_its_outcome_is_unknown(
    pair: Pair, eventually: Eventually
) -> None:
    row_id = await parked_row(pair)
    pair.freeze()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walletctl", "outbox", "park", str(row_id), "--reason", "test"),
        env={**os.environ, "DATABASE_URL": ROLES.url(pair.url, Role.OPERATOR)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A shell's background job ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    await pair.until_waiting(eventually)
    command.send_signal(signal.SIGINT)
    output, _ = await command.communicate()
    assert (command.returncode, "the outcome is unknown" in output.decode()) == (3, True), output
    assert output.decode().count("\n") == 1
    await pair.assert_invisible_then_visible(eventually, "SELECT EXISTS (SELECT FROM wallet.outbox_audit)")


async def test_a_commit_that_is_interrupted_says_that_its_outcome_is_unknown_and_nothing_before_it_does(
    pair: Pair, eventually: Eventually
) -> None:
    async def write(statement: str) -> None:
        async with pair.engine.begin() as connection:
            await connection.execute(text(statement))

    with pytest.raises(TimeoutError) as slow:
        await asyncio.wait_for(write("SELECT pg_sleep(0.4)"), 0.1)
    assert not is_outcome_unknown(slow.value)
    pair.freeze()
    writing = asyncio.create_task(write("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (7, 'test')"))
    await pair.until_waiting(eventually)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError) as interrupted:
        await writing
    assert is_outcome_unknown(interrupted.value), OUTCOME_UNKNOWN
