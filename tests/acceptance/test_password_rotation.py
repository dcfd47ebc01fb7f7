"""Passwords are rotated while processes run: a file is changed, and no process is restarted."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.connections import UnsuitableDatabaseError
from common.postgres.database_health import health_checks
from common.postgres.engine import create_engine
from common.postgres.errors import is_refused_by_server
from common.postgres.raw_sql import raw_connection
from common.settings import WalletDatabaseSettings
from tools.servers import postgres_server

Eventually = Callable[..., Awaitable[Any]]


TRUST: Final = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scram")


@pytest.fixture(scope="module")
def sockets(directory: Path) -> Path:
    """The server's own directory, which it may write to."""
    return directory / "postgres"


@pytest.fixture(scope="module")
def scram_url(directory: Path, sockets: Path) -> Iterator[str]:
    """A server that asks every role but its superuser for a password."""
    hba = directory / "pg_hba.conf"
    hba.write_text(TRUST)
    hba.chmod(0o644)
    files = {"hba_file": str(hba), "unix_socket_directories": str(sockets)}
    with postgres_server(directory, settings={"fsync": "off", **files}) as url:
        yield url


@dataclass
class Rotation:
    """A role, and the file that holds its password in some form."""

    operator: asyncpg.Connection
    role: str
    file: Path
    form: str

    def write(self, password: str) -> None:
        """Replace the file as Kubernetes does: there is no moment without it."""
        new = self.file.with_suffix(".new")
        new.write_text(self.form.format(role=self.role, password=password))
        new.chmod(0o600)
        new.rename(self.file)

    async def change(self, password: str) -> None:
        """Change the role's password in PostgreSQL."""
        await self.operator.execute(f"ALTER ROLE {self.role} PASSWORD '{password}'")


@pytest.fixture
async def rotation(scram_url: str, tmp_path: Path) -> AsyncIterator[Rotation]:
    operator, role = await asyncpg.connect(scram_url), f"app_{uuid4().hex}"
    await operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first%'")
    yield Rotation(operator, role, tmp_path / "secret", "{password}\n")
    await operator.execute(f"DROP ROLE {role}")
    await operator.close()


def without_password(url: str, role: str) -> str:
    parsed = make_url(url)
    return f"postgresql://{role}@{parsed.host}:{parsed.port}/{parsed.database}"


def settings_of(
    way: str, rotation: Rotation, scram_url: str, monkeypatch: pytest.MonkeyPatch
) -> WalletDatabaseSettings:
    """Return settings that have the password in a file, in one of the ways that there are."""
    url = without_password(scram_url, rotation.role)
    if way == "DATABASE_PASSWORD_FILE":
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(rotation.file))
    elif way == "DATABASE_URL_FILE":
        rotation.form = url.replace(f"{rotation.role}@", "{role}:{password}@") + "\n"
        monkeypatch.setenv("DATABASE_URL_FILE", str(rotation.file))
    else:
        rotation.form = "*:*:*:{role}:{password}\n"
        monkeypatch.setenv("DATABASE_URL", f"{url}?passfile={rotation.file}" if way == "passfile" else url)
        monkeypatch.setenv("PGPASSFILE", str(rotation.file if way == "PGPASSFILE" else os.devnull))
    rotation.write("first%25" if way == "DATABASE_URL_FILE" else "first%")
    return WalletDatabaseSettings()


async def is_refused(engine: AsyncEngine) -> bool:
    with pytest.raises(DBAPIError) as refused:
        async with raw_connection(engine):
            pass
    return is_refused_by_server(refused.value)


@pytest.mark.parametrize("way", ["DATABASE_PASSWORD_FILE", "DATABASE_URL_FILE", "passfile", "PGPASSFILE"])
async def test_the_next_connection_has_the_new_password_and_old_sessions_go_on(
    way: str, rotation: Rotation, scram_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(settings_of(way, rotation, scram_url, monkeypatch).database_url, "tests", pool_size=3)
    async with raw_connection(engine) as old:
        await rotation.change("second")
        assert await is_refused(engine)
        rotation.write("second")
        async with raw_connection(engine) as new:
            assert await new.fetchval("SELECT current_user") == rotation.role
        assert await old.fetchval("SELECT current_user") == rotation.role
    await engine.dispose()


@pytest.mark.parametrize("mode", [None, 0o640])
async def test_a_password_file_that_is_not_used_is_named(mode: int | None, scram_url: str, tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    if mode is not None:
        file.write_text("*:*:*:*:x\n")
        file.chmod(mode)
    url = f"{without_password(scram_url, 'postgres')}?passfile={file}"
    engine = create_engine(url, "tests")
    reason = "other users have access to it" if mode else "No such file or directory"
    with pytest.raises(UnsuitableDatabaseError, match=f"^passfile {file}: {reason}"):
        async with raw_connection(engine):
            pass
    await engine.dispose()
    with_password = create_engine(f"{url}&password=x", "tests")
    async with raw_connection(with_password):
        pass
    await with_password.dispose()


async def test_a_unix_socket_is_reached(scram_url: str, sockets: Path) -> None:
    parsed = make_url(scram_url)
    engine = create_engine(f"postgresql://{parsed.username}@/wallet?host={sockets}&port={parsed.port}", "tests")
    async with raw_connection(engine) as connection:
        assert await connection.fetchval("SELECT inet_client_addr() IS NULL")
    await engine.dispose()


async def test_while_the_file_is_missing_the_state_says_so_until_it_is_back(
    rotation: Rotation, scram_url: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    settings = settings_of("DATABASE_PASSWORD_FILE", rotation, scram_url, monkeypatch)
    engine = create_engine(settings.database_url, "tests")
    rotation.file.unlink()
    async with health_checks(engine) as health:
        way_out = "(name a file that this process can read)"
        assert health.state() == f"refuses: {rotation.file}: No such file or directory {way_out}"
        rotation.write("first%")

        async def is_ok() -> bool:
            return health.state() == "ok"

        await eventually(is_ok)
    await engine.dispose()
