"""The routes that read holds."""

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response

from common.access.caller import WALLETS_READ, caller_of
from common.events.parts import HoldStatus
from common.http.authorization import ScopedRoute, needs
from common.http.pagination import PageOf
from common.http.paths import PathUuid
from wallet_api.context import context_of
from wallet_api.errors import HoldNotFound, WalletNotFound
from wallet_api.holds import queries
from wallet_api.holds.replies import HoldList, HoldOut, hold_out_json, holds_digest
from wallet_api.openapi import READ_ERRORS
from wallet_api.read_queries import get_wallet
from wallet_api.replies import JSON, list_json

router = APIRouter(tags=["holds"], route_class=ScopedRoute)


@router.get("/holds/{hold_id}", dependencies=[needs(WALLETS_READ)], response_model=HoldOut, responses=READ_ERRORS)
async def get_hold(request: Request, hold_id: PathUuid) -> Response:
    """Read a hold, as of the last commit."""
    async with context_of(request).reader.connect() as connection:
        row = await queries.get_hold(connection, hold_id, caller_of(request).user_id)
    if row is None:
        raise HoldNotFound(hold_id)
    return Response(orjson.dumps(hold_out_json(row)), media_type=JSON)


@router.get(
    "/wallets/{wallet_id}/holds", dependencies=[needs(WALLETS_READ)], response_model=HoldList, responses=READ_ERRORS
)
async def get_holds(
    request: Request,
    wallet_id: PathUuid,
    page: PageOf,
    status: Annotated[HoldStatus | None, Query(description="Only the holds with this status.")] = None,
) -> Response:
    """Read the holds on a wallet, newest first. A hold that has expired is listed as such at once."""
    digest = holds_digest(wallet_id, status, page.order)
    (after,) = page.start(digest, [UUID(int=0)], [UUID(int=2**128 - 1)])
    user_id = caller_of(request).user_id
    async with context_of(request).reader.connect() as connection:
        rows = await queries.list_holds(connection, wallet_id, user_id, status, page.order, after, page.limit + 1)
        if not rows and await get_wallet(connection, wallet_id, user_id) is None:
            raise WalletNotFound(wallet_id)
    cursor, headers = page.next(digest, rows, ["id"])
    items = [hold_out_json(row) for row in rows[: page.limit]]
    return Response(list_json(items, cursor), media_type=JSON, headers=headers)
