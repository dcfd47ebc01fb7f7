"""The routes of operations on ledger transactions."""

from collections.abc import Collection
from inspect import getdoc

from fastapi import APIRouter, Depends, Request, Response

from common.access.caller import WALLETS_WRITE, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.paths import PathUuid, path_uuid
from wallet_api.context import context_of
from wallet_api.errors import TransactionNotFound
from wallet_api.openapi import post_documentation
from wallet_api.operation_routes import run
from wallet_api.operations.reverse import Reverse, ReverseBody
from wallet_api.replies import reply_model
from wallet_api.requests import IdempotencyKeyHeader, IfMatchHeader, read_body
from wallet_api.reversal_queries import find_original


def _parameters(
    transaction_id: PathUuid, idempotency_key: IdempotencyKeyHeader = None, if_match: IfMatchHeader = None
) -> None:
    """Document what the route reads."""


async def _post_reverse(request: Request) -> Response:
    transaction_id = path_uuid(request, "transaction_id")
    body = await read_body(request, ReverseBody)
    caller = caller_of(request)
    async with context_of(request).reader.connect() as connection:
        original = await find_original(connection, transaction_id, caller)
    if original is None:
        raise TransactionNotFound(transaction_id)
    wallet_id = Reverse.acting_wallet_id(original, body, caller)
    target = Reverse.target_of(transaction_id)
    return await run(Reverse, request, body, target, wallet_id=wallet_id, original=original)


def make_router(owner_operations: Collection[str]) -> APIRouter:
    """Return the routes, all of the fast path; `owner_operations` as for the operations on wallets."""
    router = APIRouter(tags=["transactions"], route_class=ScopedRoute)
    scope = WALLETS_WRITE if Reverse.name in owner_operations else Reverse.scope
    router.add_api_route(
        Reverse.target_of("{transaction_id}"),
        _post_reverse,
        methods=["POST"],
        name=f"post_{Reverse.name}",
        description=getdoc(Reverse),
        dependencies=[needs(scope), Depends(_parameters)],
        **post_documentation(ReverseBody, reply_model(Reverse.transaction_type), Reverse.status),
    )
    return router
