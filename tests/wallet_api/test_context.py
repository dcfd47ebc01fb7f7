"""What the application hands to its routes."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from wallet_api.context import make_context
from wallet_api.settings import WalletApiSettings


async def test_the_reader_of_the_wallet_api_is_refused_a_write(engine: AsyncEngine, database_url: str) -> None:
    context = make_context(WalletApiSettings(database_url=database_url), engine, lambda _: None)
    async with context.reader.connect() as connection:
        with pytest.raises(RuntimeError, match="only reads"):
            await connection.execute(text("UPDATE wallet.wallets SET balance_minor = 1"))
    await context.close()
