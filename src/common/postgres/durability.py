"""Settings of a PostgreSQL server under which a crash may lose committed transactions."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger()

# PostgreSQL manual, section 19.5.1. `synchronous_commit` is missing here because each session sets it.
_UNSAFE: Final = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"


def _log(message: str) -> None:
    log.warning("database_unsafe", detail=message)


def tell_unsafe_settings(engine: AsyncEngine, tell: Callable[[str], object] = _log) -> None:
    """Call `tell` with a warning for each unsafe setting, when the engine first connects.

    An unsafe setting is no error: tests do without fsync, and file systems that write whole pages without the other.
    """

    def look(connection: Any, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(_UNSAFE)
        names = [name for (name,) in cursor.fetchall()]
        cursor.close()
        connection.rollback()
        for name in names:
            tell(f"{name} is off: a crash may lose committed money. Set it to on in postgresql.conf")

    event.listen(engine.sync_engine, "first_connect", look)
