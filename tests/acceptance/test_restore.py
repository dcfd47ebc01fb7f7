"""The drill of docs/restore.md: backup, traffic, a restore to an earlier time, and a verified pipeline."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from common.tables.roles import Role
from support.api_keys import add_key
from support.databases import migrate_all
from support.processes import Pipeline
from support.roles import Roles, new_roles
from support.servers import Server
from support.traffic import create_wallets, transfer_in_a_ring, wait_until_complete
from walletctl.stack.launch import run_step
from walletctl.stack.ports import PortReservations
from walletctl.stack.postgres import Postgres, binaries
from walletctl.stack.readiness import PostgresProbe

pytestmark = pytest.mark.timeout(300)

RESTORE_POINT = "before_the_accident"


@dataclass
class Site:
    """A PostgreSQL that archives its log, its backup and its archive."""

    directory: Path
    postgres: Postgres
    server: Server

    @property
    def url(self) -> str:
        return self.postgres.url

    async def ask(self, statement: str) -> Any:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def back_up(self) -> None:
        command: list[object] = [binaries() / "pg_basebackup", f"--dbname={self.postgres.url}", "--checkpoint=fast"]
        command.append(f"--pgdata={self.directory / 'restored'}")
        run_step("pg_basebackup", self.postgres._as_server(list(map(str, command)), signal.SIGTERM))

    async def restore(self, eventually: Callable[..., Awaitable[Any]]) -> None:
        """Let the server crash, and restore it from backup and archive as it was at the restore point."""
        segment = await self.ask("SELECT pg_walfile_name(pg_switch_wal())")

        async def is_archived() -> bool:
            return bool(await self.ask(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"))

        await eventually(is_archived)
        await self.server.end(signal.SIGQUIT)
        settings = {
            **self.postgres.settings,
            "restore_command": f"cp {self.directory / 'archive'}/%f %p",
            "recovery_target_name": RESTORE_POINT,
            "recovery_target_action": "promote",
        }
        # The backup has the superuser's password too.
        (self.directory / "postgres.password").rename(self.directory / "restored.password")
        self.postgres = Postgres(self.directory / "restored", self.postgres.port, self.postgres.log_file, settings)
        (self.postgres.data_dir / "recovery.signal").touch()
        self.postgres.prepare()
        self.server.launch = self.postgres.launch
        self.server.start()
        await self.server.ready()

        async def is_itself() -> bool:
            return not await self.ask("SELECT pg_is_in_recovery()")

        await eventually(is_itself)


@pytest.fixture(scope="module")
def pipeline_roles() -> Roles:
    return new_roles()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pipeline_roles: Roles) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with closing(PortReservations()) as reservations:
        (port,) = reservations.choose(["restored"], {}).values()
        archive = directory / "archive"
        archive.mkdir()
        settings = {"fsync": "off", "archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
        postgres = Postgres(directory / "postgres", port, directory / "postgres.log", settings)
        postgres.prepare()
        site = Site(directory, postgres, Server(postgres.launch, PostgresProbe(postgres.url), postgres.log_file))
        site.server.start()
        try:
            asyncio.run(site.server.ready())
            asyncio.run(pipeline_roles.create(site.url))
            asyncio.run(migrate_all(site.url))
            asyncio.run(pipeline_roles.grant(site.url))
            asyncio.run(add_key(site.url))
            yield site
        finally:
            asyncio.run(site.server.end(signal.SIGQUIT))


@pytest.fixture(scope="module")
def service_environment(service_environment: dict[str, str], site: Site) -> dict[str, str]:
    """The wallets and their history in one database: the restore sets back both."""
    return {**service_environment, "DATABASE_URL": site.url, "CONSUMER_CHECK_SECONDS": "0.5"}


async def walletctl(pipeline: Pipeline, *arguments: str) -> tuple[int, Any]:
    """Run a command as an operator does, and as the operator's role; return its exit code and its JSON."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walletctl", *arguments, "--json"),
        env={**os.environ, **pipeline.environment_of(Role.OPERATOR)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await child.communicate()
    return child.returncode or 0, json.loads(output)


async def test_after_a_restore_to_an_earlier_time_everything_agrees_and_what_is_lost_is_known(
    pipeline: Pipeline, site: Site, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, 6)
        # A relay may take a second to connect to its broker; the backup must contain published events.
        await eventually(lambda: site.ask("SELECT bool_and(published_at IS NOT NULL) FROM wallet.outbox"))
        await asyncio.to_thread(site.back_up)
        await transfer_in_a_ring(api, wallets, 5)
        await site.ask(f"SELECT pg_create_restore_point('{RESTORE_POINT}')")
        lost_transfers = await transfer_in_a_ring(api, wallets, 7)
        later = await create_wallets(api, 1)
        await wait_until_complete(pipeline, wallets + later)
    lost_count = lost_transfers + 2
    stopped = [*pipeline.of("wallet-api"), *pipeline.of("outbox-relay")]
    for process in stopped:
        process.stop()
    await site.restore(eventually)

    began, begun = await walletctl(pipeline, "restore", "begin", "--yes", "--reason", "a drill")
    assert (began, begun["source_epoch"]) == (0, 2)
    found, lost = await walletctl(pipeline, "restore", "lost", "--limit", "1000")
    assert (found, lost["count"], len(lost["items"])) == (1, lost_count, lost_count)
    assert {item["source_epoch"] for item in lost["items"]} == {1}
    for process in stopped:
        process.start()
        await pipeline.ready(process)
    async with pipeline.client("wallet-api") as api:
        # Other events get the versions that were lost.
        await transfer_in_a_ring(api, wallets, 3)
        assert (await api.get(f"/wallets/{later[0]}")).status_code == 404
        done, rebuilt = await walletctl(pipeline, "history", "rebuild", "--yes")
        assert (done, rebuilt["source"], rebuilt["missing"]) == (0, "outbox", 0)
        await transfer_in_a_ring(api, wallets, 3)
    # The consumer was not stopped, and continues by itself.
    await wait_until_complete(pipeline, wallets)
    agrees, report = await walletctl(pipeline, "verify")
    assert agrees == 0, report["differences"]
    assert report["horizon"]["source_epoch"] == 2
    assert 0 < report["horizon"]["topic_superseded"] <= lost_count
    assert (await walletctl(pipeline, "history", "status"))[0] == 0
