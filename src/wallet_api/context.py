"""What the routes get from the application."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import reader_of
from wallet_api.commands import CreateWallet, Fund, Transfer
from wallet_api.group_commit import Bounds, GroupCommit
from wallet_api.retries import CommandRetry
from wallet_api.settings import WalletApiSettings
from wallet_api.use_cases import create_wallets, fund, transfer


@dataclass(frozen=True)
class WalletApiContext:
    """What a request needs: the settings, a read-only engine (autocommit), and a group commit for each operation."""

    settings: WalletApiSettings
    reader: AsyncEngine
    creations: GroupCommit[CreateWallet]
    funds: GroupCommit[Fund]
    transfers: GroupCommit[Transfer]

    async def close(self) -> None:
        """Abandon the batches in progress."""
        await asyncio.gather(self.creations.close(), self.funds.close(), self.transfers.close())


def make_context(
    settings: WalletApiSettings, engine: AsyncEngine, on_commit: Callable[[int], None]
) -> WalletApiContext:
    """Return the context of an application; `on_commit` is called after each transaction with its commands' number."""
    bounds = Bounds(
        batch_commands=settings.batch_commands_max,
        queue_commands=settings.queue_commands_max,
        transaction_timeout_seconds=settings.transaction_timeout_seconds,
    )
    retry = CommandRetry(settings.version_attempts_max, settings.busy_retry_seconds)
    return WalletApiContext(
        settings,
        reader_of(engine),
        GroupCommit("create", engine, create_wallets, create_wallets, bounds, retry, on_commit),
        GroupCommit("fund", engine, fund, partial(fund, skip_locked=True), bounds, retry, on_commit),
        GroupCommit("transfer", engine, transfer, partial(transfer, skip_locked=True), bounds, retry, on_commit),
    )


async def context_of(request: Request) -> WalletApiContext:
    """Return the application's context; a FastAPI dependency."""
    return cast("WalletApiContext", request.app.state.context)
