"""Runs an operator's command on a database, under the command's own application name."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.connections import OUTCOME_UNKNOWN, UnsuitableDatabaseError, is_outcome_unknown
from common.postgres.engine import operator_engine
from common.secrets import Secret
from common.settings import HistoryDatabaseSettings, WalletDatabaseSettings
from walletctl.console import Exit, fail, load_settings

ResultT = TypeVar("ResultT")


def with_wallet_database(work: Callable[[AsyncEngine], Awaitable[ResultT]]) -> ResultT:
    """Run `work` on the database that DATABASE_URL names."""
    return _run(load_settings(WalletDatabaseSettings).database_url, work)


def with_history_database(work: Callable[[AsyncEngine], Awaitable[ResultT]]) -> ResultT:
    """Run `work` on the database that HISTORY_DATABASE_URL names, or DATABASE_URL if that is unset."""
    return _run(load_settings(HistoryDatabaseSettings).history_database_url, work)


def _run(url: Secret, work: Callable[[AsyncEngine], Awaitable[ResultT]]) -> ResultT:
    async def go() -> ResultT:
        async with operator_engine(url) as engine:
            return await work(engine)

    return run(go())


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a command's work on databases.

    If Ctrl-C or a lost connection interrupts a COMMIT, the process ends with one line and exit code 3. A database that
    doesn't meet the requirements ends it with one line and exit code 2.
    """
    try:
        return asyncio.run(work)
    except UnsuitableDatabaseError as error:
        fail(str(error), Exit.USAGE)
    except (Exception, KeyboardInterrupt) as error:
        if not is_outcome_unknown(error):
            raise
        fail(f"{OUTCOME_UNKNOWN}. Check whether it was done, or run the command again", Exit.UNREACHABLE)
