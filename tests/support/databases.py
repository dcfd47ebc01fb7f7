"""Databases by their URLs: plain SQL, migrations, and the clones that the tests work on."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.migrations import SCHEMAS, migrate
from common.secrets import Secret

Result = TypeVar("Result")


def text_of(url: Secret | str) -> str:
    """Return the URL, of a setting or not, as text."""
    return url.read() if isinstance(url, Secret) else url


def with_database(url: Secret | str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return make_url(text_of(url)).set(database=name).render_as_string(hide_password=False)


async def run_sql(url: Secret | str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    connection = await asyncpg.connect(text_of(url))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def patient_engine(url: Secret | str) -> AsyncIterator[AsyncEngine]:
    """Lend an engine whose transactions may idle as long as a test holds them, on a slow machine too."""
    engine = create_engine(url, "tests", pool_size=20, idle_in_transaction_timeout_seconds=0)
    yield engine
    await engine.dispose()


async def migrate_all(url: str) -> None:
    """Migrate every schema to its newest revision."""
    engine = create_engine(url, "tests")
    for schema in SCHEMAS:
        await migrate(engine, schema)
    await engine.dispose()


class Databases:
    """Makes and drops databases in a thread of its own: the next test's is made while a test runs.

    Args:
        url: of the server's maintenance database.
        template: the name of a database that stays as it is; its clones are made ahead.
    """

    def __init__(self, url: str, template: str) -> None:
        self._url = url
        self._template = template
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._connection = self._submit(asyncpg.connect(url)).result()
        self._next = self._make(template)
        self._drops: list[Future[str]] = []

    def clone(self) -> str:
        """Return the URL of a clone of the template."""
        made, self._next = self._next, self._make(self._template)
        return with_database(self._url, made.result())

    def make(self, template: str | None) -> str:
        """Return the URL of a new database: empty, or a clone of this template as it is now."""
        return with_database(self._url, self._make(template).result())

    def drop(self, url: str) -> None:
        """Have the database dropped, whatever sessions it has."""
        self._drops.append(self._submit(self._connection.execute(f'DROP DATABASE "{database_of(url)}" WITH (FORCE)')))

    def close(self) -> None:
        """Drop what was made ahead, and wait for all drops.

        Raises:
            asyncpg.PostgresError: a database could not be dropped.
        """
        self.drop(with_database(self._url, self._next.result()))
        for dropped in self._drops:
            dropped.result()
        self._submit(self._connection.close()).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _make(self, template: str | None) -> "Future[str]":
        return self._submit(self._create(f"test_{uuid4().hex}", template))

    async def _create(self, name: str, template: str | None) -> str:
        await self._connection.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return name

    def _submit(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        return self._thread.submit(self._runner.run, work)


def database_of(url: Secret | str) -> str:
    """Return the name of the URL's database."""
    return str(make_url(text_of(url)).database)
