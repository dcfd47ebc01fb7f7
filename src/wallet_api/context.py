"""What the routes get from the application."""

import asyncio
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from wallet_api.commands import CreateWallet
from wallet_api.group_commit.group_commit import GroupCommit
from wallet_api.operations.operation import Operation
from wallet_api.settings import WalletApiSettings


@dataclass(frozen=True)
class WalletApiContext:
    """What a request needs: the settings, an engine that only reads, and the group commits of all that writes."""

    settings: WalletApiSettings
    reader: AsyncEngine
    creations: GroupCommit[CreateWallet]
    operations: GroupCommit[Operation]

    async def close(self) -> None:
        """Abandon the batches in progress."""
        await asyncio.gather(self.creations.close(), self.operations.close())


def context_of(request: Request) -> WalletApiContext:
    """Return the application's context."""
    return cast("WalletApiContext", request.app.state.context)
