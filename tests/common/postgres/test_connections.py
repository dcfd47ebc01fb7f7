"""Which of several hosts is chosen, and which databases are refused."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres import connections
from common.postgres.connections import UninterruptedConnection, UnsuitableDatabaseError, connect
from common.postgres.database_health import health_checks
from common.postgres.engine import create_engine
from common.postgres.errors import is_refused_by_server, is_unreachable
from common.postgres.raw_sql import raw_connection
from common.secrets import Secret
from support.command_lines import AsyncWalletCtl, run_walletctl, walletctl
from support.proxy import Proxy
from walletctl.console import Exit

__all__ = ["run_walletctl", "walletctl"]

Eventually = Callable[..., Awaitable[Any]]
HOST = "127.0.0.1"
WITHIN_SECONDS = 5.0
"""The default time-out of a process."""


class Listener(asyncio.Protocol):
    """Accepts connections and sends nothing, as a frozen server does; or sends `N` (no TLS) and then one answer."""

    def __init__(self, answer: bytes = b"") -> None:
        self._answers = [b"N", answer] if answer else []
        self._transports: list[asyncio.Transport] = []

    @property
    def count(self) -> int:
        """Return how many connections it has accepted."""
        return len(self._transports)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        del data
        if self._answers:
            self._transports[-1].write(self._answers.pop(0))

    def close(self) -> None:
        for transport in self._transports:
            transport.abort()


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: listener, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        listener.close()


@pytest.fixture
async def silent() -> AsyncIterator[tuple[Listener, int]]:
    listener = Listener()
    async with listening(listener) as port:
        yield listener, port


def several(url: str, *ports: int, **changes: str) -> str:
    """Return the URL with hosts at these ports before its own host."""
    parsed = make_url(url)
    hosts = [f"{HOST}:{port}" for port in (*ports, parsed.port)]
    parsed = parsed.set(host=None, port=None, query={"host": hosts}, **changes)
    return parsed.render_as_string(hide_password=False)


async def use(engine: AsyncEngine) -> None:
    async with raw_connection(engine) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def connected(url: str, timeout_seconds: float = WITHIN_SECONDS) -> UninterruptedConnection:
    return await connect(Secret(url), "tests", {}, timeout_seconds=timeout_seconds, on_standby=False)


async def test_an_engine_connects_to_the_second_host_while_the_first_is_silent(
    database_url: str, silent: tuple[Listener, int]
) -> None:
    listener, port = silent
    engine = create_engine(several(database_url, port), "tests", connect_timeout_seconds=WITHIN_SECONDS)
    await use(engine)
    assert listener.count == 1
    await engine.dispose()


async def test_a_health_check_reaches_the_second_host_while_the_first_is_silent(
    database_url: str, silent: tuple[Listener, int], eventually: Eventually
) -> None:
    engine = create_engine(several(database_url, silent[1]), "tests", connect_timeout_seconds=0.8)

    async with health_checks(engine) as health:

        async def is_ok() -> bool:
            return health.state() == "ok"

        async def is_usable() -> bool:
            try:
                await use(engine)
            except (OSError, TimeoutError):
                return False
            return True

        await eventually(is_ok)
        await eventually(is_usable)
    await engine.dispose()


async def test_the_host_that_was_chosen_last_is_tried_first(
    database_url: str, silent: tuple[Listener, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, port = silent
    engine = create_engine(several(database_url, port), "tests", pool_size=2)
    await use(engine)
    monkeypatch.setattr(connections, "_HEAD_START_SECONDS", 20)
    async with raw_connection(engine):
        await use(engine)
    assert listener.count == 1
    await engine.dispose()


async def test_hosts_that_were_not_chosen_keep_no_session(
    database_url: str, database_link: Proxy, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(connections, "_HEAD_START_SECONDS", 0)
    name = f"hosts {uuid4()}"
    engine = create_engine(several(database_url, *[database_link.port] * 5), name, pool_size=1)
    await use(engine)

    async def is_alone() -> bool:
        async with raw_connection(engine) as connection:
            count = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
        return bool(count == 1)

    await eventually(is_alone)
    await engine.dispose()


async def test_if_no_host_accepts_the_connection_the_most_informative_error_is_raised(
    database_url: str, silent: tuple[Listener, int]
) -> None:
    started = time.monotonic()
    url = make_url(database_url)
    silent_url = f"postgresql://postgres:{url.password}@{HOST}:{silent[1]},{HOST}:{{port}}/nowhere"
    with pytest.raises(asyncpg.InvalidCatalogNameError) as missing:
        await connected(silent_url.format(port=url.port), 2)
    assert is_refused_by_server(missing.value)
    with pytest.raises(TimeoutError) as late:
        await connected(silent_url.format(port=silent[1]), 0.5)
    assert is_unreachable(late.value)
    assert time.monotonic() - started < 15


def error_response(**fields: str) -> bytes:
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


async def test_the_error_for_a_server_that_is_too_old_names_the_required_version() -> None:
    """Such a server doesn't know one of the session's parameters."""
    message = 'unrecognized configuration parameter "transaction_timeout"'
    async with listening(Listener(error_response(S="FATAL", V="FATAL", C="42704", M=message))) as port:
        engine = create_engine(f"postgresql://postgres@{HOST}:{port}/wallet", "tests")
        with pytest.raises(UnsuitableDatabaseError, match=r"PostgreSQL 17 or newer.*transaction_timeout") as old:
            await use(engine)
        assert is_unreachable(old.value)
        await engine.dispose()


async def test_a_server_that_reports_an_old_version_is_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SERVER_VERSION_MIN", 1000)
    engine = create_engine(database_url, "tests")
    with pytest.raises(UnsuitableDatabaseError, match="or newer is needed; upgrade the server: this is"):
        await use(engine)
    await engine.dispose()


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
async def foreign_url(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[str]:
    """A database of another encoding."""
    name, operator = f"foreign_{uuid4().hex}", await asyncpg.connect(postgres_url)
    options = f"ENCODING '{request.param}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    await operator.execute(f"CREATE DATABASE {name} {options}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    await operator.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await operator.close()


async def test_a_database_of_another_encoding_is_refused_with_the_remedy(foreign_url: str) -> None:
    engine = create_engine(foreign_url, "tests")
    with pytest.raises(UnsuitableDatabaseError, match=r"must be UTF8; create one with ENCODING 'UTF8'"):
        await use(engine)
    async with health_checks(engine) as health:
        assert health.state().startswith("refuses: the database's encoding must be UTF8")
    await engine.dispose()


@pytest.mark.parametrize("command", ["migrate", "status"])
async def test_a_command_ends_with_one_line_and_the_exit_code_of_bad_configuration(
    foreign_url: str, run_walletctl: AsyncWalletCtl, command: str
) -> None:
    code, output = await run_walletctl("db", command, DATABASE_URL=foreign_url)
    assert (code, output.count("\n"), "ENCODING 'UTF8'" in output) == (Exit.USAGE, 1, True), output


async def test_a_command_reaches_the_second_host_while_the_first_is_silent(
    database_url: str, run_walletctl: AsyncWalletCtl, silent: tuple[Listener, int]
) -> None:
    code, output = await run_walletctl("db", "status", DATABASE_URL=several(database_url, silent[1]))
    assert code == Exit.OK, output
