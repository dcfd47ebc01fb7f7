"""A wallet's history for operators: the pages of the history API, read from its database."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from common.http.pagination import PageBounds, list_digest
from history_consumer.projection import VERSION_MAX
from history_consumer.read_api import page_queries
from history_consumer.read_api.page_queries import Filters
from history_consumer.read_api.replies import page_json


async def wallet_history(engine: AsyncEngine, wallet_id: UUID, filters: Filters, page: PageBounds) -> dict[str, Any]:
    """Return a page of a wallet's history, as the history API has it for a caller that may read all wallets.

    Args:
        engine: of the history's database.
        wallet_id: of the wallet. The page of one that the history doesn't know has no items, as of version 0.
        filters: of the list.
        page: which page of it.

    Raises:
        ValidationProblem: the cursor isn't of this list.
    """
    digest = list_digest("wallet", wallet_id, page.order, *filters.canonical())
    (after,) = page.start(digest, [0], [VERSION_MAX])
    async with engine.connect() as connection:
        found = await page_queries.wallet_page(connection, wallet_id, None, page.order, after, filters, page.limit + 1)
    cursor = page.next_cursor(digest, found.rows, ["wallet_version"])
    listed: dict[str, Any] = orjson.loads(page_json(found, page.limit, cursor))
    return listed
