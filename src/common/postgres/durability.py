"""Settings of a PostgreSQL server under which a crash may take what was committed."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger()

# PostgreSQL manual, section 19.5.1. `synchronous_commit` isn't among them: each session sets it.
_UNSAFE: Final = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"


def _log(message: str) -> None:
    log.warning("database_unsafe", detail=message)


def tell_unsafe_settings(engine: AsyncEngine, tell: Callable[[str], object] = _log) -> None:
    """Look at the server's settings when the engine connects for the first time; tell of each that is unsafe.

    It is no error: tests and file systems that write whole pages do without.
    """

    def look(connection: Any, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(_UNSAFE)
        names = [name for (name,) in cursor.fetchall()]
        cursor.close()
        connection.rollback()
        for name in names:
            tell(f"{name} is off: a crash may take committed money. Set it to on in postgresql.conf")

    event.listen(engine.sync_engine, "first_connect", look)
