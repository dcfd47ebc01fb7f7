"""The routes of a wallet's limits: read them, and replace them."""

from collections.abc import Collection
from inspect import getdoc

import orjson
from fastapi import APIRouter, Depends, Request, Response

from common.access.caller import WALLETS_READ, WALLETS_WRITE, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.paths import PathUuid, path_uuid
from wallet_api.context import context_of
from wallet_api.errors import IfMatchRequired, WalletNotFound
from wallet_api.limits import queries
from wallet_api.limits.replies import LimitsOut, limits_out_json
from wallet_api.openapi import READ_ERRORS, put_limits_documentation
from wallet_api.operation_routes import run
from wallet_api.operations.set_limits import SetLimits
from wallet_api.replies import JSON, etag
from wallet_api.reply_models import reply_model
from wallet_api.requests import REQUIRED_IF_MATCH, IdempotencyKeyHeader, PreviewQuery, read_body


def _parameters(
    wallet_id: PathUuid, idempotency_key: IdempotencyKeyHeader = None, preview: PreviewQuery = False
) -> None:
    """Document what the route reads."""


async def _get_limits(request: Request, wallet_id: PathUuid) -> Response:
    """Read a wallet's limits, and what is used of them, as of the last commit."""
    async with context_of(request).reader.connect() as connection:
        rows = await queries.get_limits(connection, wallet_id, caller_of(request).user_id)
    if not rows:
        raise WalletNotFound(wallet_id)
    headers = {"ETag": etag(rows[0]["version"])}
    return Response(orjson.dumps(limits_out_json(wallet_id, rows)), media_type=JSON, headers=headers)


async def _put_limits(request: Request) -> Response:
    if "if-match" not in request.headers:
        raise IfMatchRequired
    wallet_id = path_uuid(request, "wallet_id")
    body = await read_body(request, SetLimits.body)
    return await run(SetLimits, request, body, wallet_id)


def make_router(owner_operations: Collection[str]) -> APIRouter:
    """Return the routes.

    Args:
        owner_operations: the names of operators' operations that owners may do with their own wallets.
    """
    router = APIRouter(tags=["wallets"], route_class=ScopedRoute)
    path = SetLimits.target_of("{wallet_id}")
    router.add_api_route(
        path,
        _get_limits,
        methods=["GET"],
        name="get_limits",
        dependencies=[needs(WALLETS_READ)],
        response_model=LimitsOut,
        responses=READ_ERRORS,
    )
    router.add_api_route(
        path,
        _put_limits,
        methods=["PUT"],
        name="put_limits",
        description=getdoc(SetLimits),
        dependencies=[
            needs(WALLETS_WRITE if SetLimits.name in owner_operations else SetLimits.scope),
            Depends(_parameters),
        ],
        **put_limits_documentation(reply_model(SetLimits.transaction_type), REQUIRED_IF_MATCH),
    )
    return router
