"""The route that reads a wallet's limits."""

import orjson
from fastapi import APIRouter, Request, Response

from common.access.caller import WALLETS_READ, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.paths import PathUuid
from wallet_api.context import context_of
from wallet_api.errors import WalletNotFound
from wallet_api.limits import queries
from wallet_api.limits.replies import LimitsOut, limits_out_json
from wallet_api.openapi import READ_ERRORS
from wallet_api.replies import JSON, etag

router = APIRouter(tags=["wallets"], route_class=ScopedRoute)


@router.get(
    "/wallets/{wallet_id}/limits", dependencies=[needs(WALLETS_READ)], response_model=LimitsOut, responses=READ_ERRORS
)
async def get_limits(request: Request, wallet_id: PathUuid) -> Response:
    """Read a wallet's limits, and what is used of them, as of the last commit."""
    async with context_of(request).reader.connect() as connection:
        rows = await queries.get_limits(connection, wallet_id, caller_of(request).user_id)
    if not rows:
        raise WalletNotFound(wallet_id)
    headers = {"ETag": etag(rows[0]["version"])}
    return Response(orjson.dumps(limits_out_json(wallet_id, rows)), media_type=JSON, headers=headers)
