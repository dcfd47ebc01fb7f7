"""TLS to PostgreSQL: what is checked, and what is said when a check fails."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from common.postgres.connections import UnsuitableDatabaseError
from common.postgres.database_health import health_checks
from common.postgres.engine import create_engine
from common.postgres.errors import is_refused_by_server
from common.postgres.raw_sql import raw_connection
from support.command_lines import AsyncWalletCtl, run_walletctl, walletctl
from support.ports import free_port
from support.proxy import HOST
from support.tls_proxy import TlsProxy
from walletctl.console import Exit

__all__ = ["run_walletctl", "walletctl"]

Eventually = Callable[..., Awaitable[Any]]
AWAY = (OSError, DBAPIError)
"""The server closes the connection and says nothing."""


class Authority:
    """A certificate authority with the files of a test."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.file = directory / "ca.pem"
        self.cert, self.key = directory / "client.pem", directory / "client.key"
        self.ca.cert_pem.write_to_path(self.file)
        client = self.ca.issue_cert("client.test")
        client.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.cert)

    def server_context(self, name: str = HOST) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("another"))


@asynccontextmanager
async def tls_in_front(url: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Yield the URL of the database behind a server that takes TLS only."""
    parsed = make_url(url)
    async with TlsProxy(free_port(), parsed.port or 5432, context=context) as proxy:
        yield parsed.set(host=HOST, port=proxy.port).render_as_string(hide_password=False)


@pytest.fixture
async def tls_url(database_url: str, authority: Authority) -> AsyncIterator[str]:
    async with tls_in_front(database_url, authority.server_context()) as url:
        yield url


async def use(url: str) -> None:
    engine = create_engine(url, "tests")
    try:
        async with raw_connection(engine) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await engine.dispose()


async def refusal_of(url: str) -> str:
    with pytest.raises(UnsuitableDatabaseError, match=r"^[^\n]*$") as refused:
        await use(url)
    assert is_refused_by_server(refused.value)
    return str(refused.value)


async def test_a_server_is_reached_by_tls_unless_the_url_has_sslmode_disable(tls_url: str) -> None:
    for mode in ("", "?sslmode=allow", "?sslmode=prefer", "?sslmode=require", "?ssl=true"):
        await use(f"{tls_url}{mode}")
    with pytest.raises(AWAY):
        await use(f"{tls_url}?sslmode=disable")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_the_named_authority_is_accepted(
    mode: str, tls_url: str, authority: Authority, another: Authority
) -> None:
    await use(f"{tls_url}?sslmode={mode}&sslrootcert={authority.file}")
    told = await refusal_of(f"{tls_url}?sslmode={mode}&sslrootcert={another.file}")
    assert told.startswith("the server's certificate is refused: ")
    assert "correct sslrootcert" in told


async def test_the_authorities_of_the_system_are_meant_by_sslrootcert_system(
    tls_url: str, authority: Authority, another: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    await use(f"{tls_url}?sslmode=verify-full&sslrootcert=system")
    monkeypatch.setenv("SSL_CERT_FILE", str(another.file))
    assert "certificate is refused" in await refusal_of(f"{tls_url}?sslmode=verify-full&sslrootcert=system")


async def test_the_name_in_the_certificate_is_checked_by_verify_full_only(
    database_url: str, authority: Authority
) -> None:
    async with tls_in_front(database_url, authority.server_context("elsewhere.test")) as url:
        await use(f"{url}?sslmode=verify-ca&sslrootcert={authority.file}")
        told = await refusal_of(f"{url}?sslmode=verify-full&sslrootcert={authority.file}")
    assert "certificate is not valid for '127.0.0.1'" in told


@pytest.mark.parametrize("root", ["system", "file"])
async def test_a_client_certificate_is_shown(
    root: str, database_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = authority.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    async with tls_in_front(database_url, context) as url:
        checked = f"{url}?sslmode=verify-full&sslrootcert={'system' if root == 'system' else authority.file}"
        await use(f"{checked}&sslcert={authority.cert}&sslkey={authority.key}")
        with pytest.raises(AWAY):
            await use(checked)


async def test_a_server_without_tls_is_refused_if_the_url_requires_tls(database_url: str) -> None:
    told = await refusal_of(f"{database_url}?sslmode=require")
    assert told == "the server has no TLS, and the URL's sslmode requires it (turn on ssl in postgresql.conf)"


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslcrl"])
async def test_a_missing_file_is_refused_by_its_name_and_waited_for(
    name: str, tls_url: str, authority: Authority, tmp_path: Path, eventually: Eventually
) -> None:
    file = tmp_path / "missing.pem"
    key = f"&sslkey={authority.key}" if name == "sslcert" else ""
    engine = create_engine(f"{tls_url}?sslmode=require&{name}={file}{key}", "tests")
    async with health_checks(engine) as health:
        way_out = "(provide the file, or correct the URL)"
        assert health.state() == f"refuses: {name} {file}: No such file or directory {way_out}"

        async def is_ok() -> bool:
            return health.state() == "ok"

        if name != "sslcrl":
            file.write_bytes((authority.cert if name == "sslcert" else authority.file).read_bytes())
            await eventually(is_ok)
    await engine.dispose()


@pytest.mark.parametrize("root", ["system", "file"])
async def test_a_file_that_is_no_certificate_is_refused(
    root: str, tls_url: str, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "text.pem"
    file.write_text("no certificate")
    checked = f"sslmode=verify-full&sslrootcert={'system' if root == 'system' else authority.file}"
    for parameters in (f"sslmode=require&sslrootcert={file}", f"{checked}&sslcert={file}&sslkey={authority.key}"):
        assert "begin with ssl, or their files" in await refusal_of(f"{tls_url}?{parameters}")


@pytest.mark.parametrize("command", [["db", "migrate"], ["history", "status"]], ids=" ".join)
async def test_a_command_ends_with_one_line(
    run_walletctl: AsyncWalletCtl, command: list[str], tls_url: str, another: Authority
) -> None:
    url = f"{tls_url}?sslmode=verify-full&sslrootcert={another.file}"
    code, output = await run_walletctl(*command, DATABASE_URL=url)
    assert (code, output.count("\n"), "certificate is refused" in output) == (Exit.USAGE, 1, True), output
