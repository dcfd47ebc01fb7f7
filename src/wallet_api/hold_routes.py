"""The routes of holds that exist: captures and voids, made from their classes, and reads."""

from collections.abc import Awaitable, Callable
from inspect import getdoc
from typing import Annotated, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from common.access.caller import WALLETS_READ, caller_of
from common.events import HoldStatus
from common.http.authorization import ScopedRoute, needs
from common.http.pagination import PageOf
from common.http.paths import PathUuid, path_uuid
from wallet_api import read_queries
from wallet_api.context import context_of
from wallet_api.errors import HoldNotFound, WalletNotFound
from wallet_api.openapi import READ_ERRORS, post_documentation
from wallet_api.operation_routes import run
from wallet_api.operations.catalogue import HOLD_OPERATIONS
from wallet_api.operations.holds import HoldOperation
from wallet_api.replies import JSON, HoldList, HoldOut, hold_out_json, reply_model
from wallet_api.requests import IdempotencyKeyHeader, IfMatchHeader, PreviewQuery, read_body
from wallet_api.routes import holds_digest, list_response

router = APIRouter(tags=["holds"], route_class=ScopedRoute)


def _parameters(
    hold_id: PathUuid,
    idempotency_key: IdempotencyKeyHeader = None,
    if_match: IfMatchHeader = None,
    preview: PreviewQuery = False,
) -> None:
    """Document what the route of an operation on a hold reads."""


def _endpoint(operation: type[HoldOperation]) -> Callable[[Request], Awaitable[Response]]:
    async def post(request: Request) -> Response:
        hold_id = path_uuid(request, "hold_id")
        body = await read_body(request, operation.body)
        async with context_of(request).reader.connect() as connection:
            found = await read_queries.find_hold(connection, hold_id, caller_of(request).user_id)
        if found is None:
            raise HoldNotFound(hold_id)
        wallet_id, to_wallet_id = found
        target = operation.target_of(hold_id)
        return await run(
            operation, request, body, target, wallet_id=wallet_id, hold_id=hold_id, to_wallet_id=to_wallet_id
        )

    return post


def _post_router() -> APIRouter:
    posts = APIRouter(tags=["holds"], route_class=ScopedRoute)
    for operation in HOLD_OPERATIONS:
        posts.add_api_route(
            operation.target_of("{hold_id}"),
            _endpoint(operation),
            methods=["POST"],
            name=f"post_{operation.name}",
            description=getdoc(operation),
            dependencies=[needs(operation.scope), Depends(_parameters)],
            **post_documentation(operation.body, reply_model(operation.transaction_type), operation.status),
        )
    return posts


post_router: Final = _post_router()
"""The routes of operations on holds, all of the fast path."""


@router.get("/holds/{hold_id}", dependencies=[needs(WALLETS_READ)], response_model=HoldOut, responses=READ_ERRORS)
async def get_hold(request: Request, hold_id: PathUuid) -> Response:
    """Read a hold, as of the last commit."""
    async with context_of(request).reader.connect() as connection:
        row = await read_queries.get_hold(connection, hold_id, caller_of(request).user_id)
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
        rows = await read_queries.list_holds(connection, wallet_id, user_id, status, page.order, after, page.limit + 1)
        if not rows and await read_queries.get_wallet(connection, wallet_id, user_id) is None:
            raise WalletNotFound(wallet_id)
    cursor, headers = page.next(digest, rows, ["id"])
    return list_response([hold_out_json(row) for row in rows[: page.limit]], cursor, headers)
