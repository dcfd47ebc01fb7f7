"""Opens what a process of the API needs: its engines, its group commits, its background tasks and its health checks."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import in_background
from common.postgres.database_health import DatabaseHealth, health_checks
from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import create_engine
from wallet_api import read_queries
from wallet_api.context import WalletApiContext
from wallet_api.group_commit.command_retry import CommandRetry
from wallet_api.group_commit.group_commit import Bounds, GroupCommit
from wallet_api.holds.releaser import HoldReleaser
from wallet_api.outbox.relay_notifier import RelayNotifier
from wallet_api.settings import WalletApiSettings
from wallet_api.use_cases.use_cases import create_wallets, run_operations

# A process that hangs in the middle of a batch holds the locks of all its wallets: PostgreSQL ends its session then.
_HUNG_TRANSACTION_SECONDS: Final = 5.0
# Each group commit runs one transaction at a time.
WRITE_CONNECTIONS_MAX: Final = 2


@asynccontextmanager
async def open_context(settings: WalletApiSettings) -> AsyncIterator[tuple[WalletApiContext, DatabaseHealth]]:
    """Lend the context, and the health of its database."""
    async with AsyncExitStack() as stack:
        writer = _create_engine(settings, WRITE_CONNECTIONS_MAX)
        stack.push_async_callback(writer.dispose)
        reader = _create_engine(settings, settings.database_pool_size, writes=False)
        stack.push_async_callback(reader.dispose)
        tell_unsafe_settings(writer)
        notifying = create_engine(
            settings.database_url,
            "wallet-api-notifier",
            pool_size=1,
            connect_timeout_seconds=settings.database_connect_timeout_seconds,
            durable=False,
        )
        stack.push_async_callback(notifying.dispose)
        notifier = RelayNotifier(notifying)
        await stack.enter_async_context(in_background("relay_notifier", notifier.run))
        context = make_context(settings, writer, reader, notifier.note_commit)
        stack.push_async_callback(context.close)
        releaser = HoldReleaser(reader, context.operations, settings.hold_release_seconds)
        await stack.enter_async_context(in_background("hold_releaser", releaser.run))
        yield context, await stack.enter_async_context(health_checks(writer, reader, query=read_queries.USABLE))


def _create_engine(settings: WalletApiSettings, pool_size: int, *, writes: bool = True) -> AsyncEngine:
    return create_engine(
        settings.database_url,
        "wallet-api",
        pool_size=pool_size,
        pool_timeout_seconds=settings.pool_timeout_seconds,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        # A batch waits no longer than its commands may.
        lock_timeout_seconds=min(settings.batch_lock_timeout_seconds, settings.busy_retry_seconds),
        idle_in_transaction_timeout_seconds=_HUNG_TRANSACTION_SECONDS,
        transaction_timeout_seconds=settings.transaction_timeout_seconds + _HUNG_TRANSACTION_SECONDS,
        writes=writes,
    )


def make_context(
    settings: WalletApiSettings, writer: AsyncEngine, reader: AsyncEngine, on_commit: Callable[[int], None]
) -> WalletApiContext:
    """Return the context; `on_commit` is called after each transaction, with the number of its commands."""
    bounds = Bounds(
        batch_commands=settings.batch_commands_max,
        queue_commands=settings.queue_commands_max,
        queue_batch_operations=settings.queue_batch_operations_max,
        transaction_timeout_seconds=settings.transaction_timeout_seconds,
    )
    retry = CommandRetry(settings.version_attempts_max, settings.busy_retry_seconds)
    run_skipping = partial(run_operations, skip_locked=True)
    return WalletApiContext(
        settings,
        reader,
        GroupCommit("create", writer, create_wallets, create_wallets, bounds, retry, on_commit),
        GroupCommit("operations", writer, run_operations, run_skipping, bounds, retry, on_commit),
    )
