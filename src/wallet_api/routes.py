"""The wallet API's routes: parse, run one use case, reply."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Request, Response

from common.access.caller import FUNDS_WRITE, WALLETS_READ, WALLETS_WRITE, Caller, caller_of, check_user
from common.http.authorization import ScopedRoute, needs
from common.http.pagination import PageOf, list_digest
from common.http.paths import PathUserId, PathUuid, path_of, path_uuid
from wallet_api import metrics, read_queries
from wallet_api.commands import CreateWallet, Fund, Transfer
from wallet_api.context import context_of
from wallet_api.errors import WalletNotFound
from wallet_api.openapi import LIST_ERRORS, READ_ERRORS, post_documentation
from wallet_api.replies import (
    JSON,
    EntryList,
    MoneyOut,
    Reply,
    WalletList,
    WalletOut,
    entry_json,
    etag,
    wallet_json,
)
from wallet_api.requests import (
    CreateWalletBody,
    FundBody,
    IdempotencyKeyHeader,
    IfMatchHeader,
    TransferBody,
    is_match,
    read_body,
    read_claim,
    read_if_match,
    read_traceparent,
)

hot_router = APIRouter(tags=["wallets"], route_class=ScopedRoute)
"""The routes of the fast path. Dependencies document what their endpoints read from the request."""
router = APIRouter(tags=["wallets"], route_class=ScopedRoute)

_WALLET: Final = "/wallets/{wallet_id}"
_VERSION_MAX: Final = 2**63 - 1


def _create_parameters(idempotency_key: IdempotencyKeyHeader = None) -> None:
    """Document what `post_wallet` reads."""


def _money_parameters(
    wallet_id: PathUuid, idempotency_key: IdempotencyKeyHeader = None, if_match: IfMatchHeader = None
) -> None:
    """Document what `post_fund` and `post_transfer` read."""


def _read_parameters(wallet_id: PathUuid, if_none_match: Annotated[str | None, Header()] = None) -> None:
    """Document what `get_wallet` reads."""


@hot_router.post(
    "/wallets",
    dependencies=[needs(WALLETS_WRITE), Depends(_create_parameters)],
    **post_documentation(CreateWalletBody, WalletOut, 201),
)
async def post_wallet(request: Request) -> Response:
    """Create a wallet for a user."""
    caller = caller_of(request)
    body = await read_body(request, CreateWalletBody)
    check_user(caller, body.user_id)
    command = CreateWallet(
        **_common(request, caller, body, "/wallets"),
        user_id=body.user_id,
        currency=body.currency,
        external_id=body.external_id,
    )
    return _respond("create", await context_of(request).creations.submit(command))


@hot_router.post(
    f"{_WALLET}/fund",
    dependencies=[needs(FUNDS_WRITE), Depends(_money_parameters)],
    **post_documentation(FundBody, MoneyOut, 200),
)
async def post_fund(request: Request) -> Response:
    """Bring money in from outside. Locks optimistically."""
    wallet_id = path_uuid(request, "wallet_id")
    body = await read_body(request, FundBody)
    command = Fund(**_money(request, wallet_id, body, "fund"))
    return _respond("fund", await context_of(request).funds.submit(command))


@hot_router.post(
    f"{_WALLET}/transfer",
    dependencies=[needs(WALLETS_WRITE), Depends(_money_parameters)],
    **post_documentation(TransferBody, MoneyOut, 200),
)
async def post_transfer(request: Request) -> Response:
    """Send money to another wallet of the same currency. Locks both wallets.

    The reply tells nothing of a wallet that the caller may not read, but that it cannot receive.
    """
    wallet_id = path_uuid(request, "wallet_id")
    body = await read_body(request, TransferBody)
    command = Transfer(**_money(request, wallet_id, body, "transfer"), to_wallet_id=body.to_wallet_id)
    return _respond("transfer", await context_of(request).transfers.submit(command))


@hot_router.get(
    _WALLET,
    dependencies=[needs(WALLETS_READ), Depends(_read_parameters)],
    response_model=WalletOut,
    responses=READ_ERRORS,
)
async def get_wallet(request: Request) -> Response:
    """Read a wallet and its balance, as of the last commit."""
    wallet_id = path_uuid(request, "wallet_id")
    async with context_of(request).reader.connect() as connection:
        row = await read_queries.get_wallet(connection, wallet_id, caller_of(request).user_id)
    if row is None:
        raise WalletNotFound(wallet_id)
    headers = {"ETag": etag(row["version"])}
    if is_match(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(wallet_json(row)), media_type=JSON, headers=headers)


@router.get(
    f"{_WALLET}/transactions", dependencies=[needs(WALLETS_READ)], response_model=EntryList, responses=READ_ERRORS
)
async def get_transactions(request: Request, wallet_id: PathUuid, page: PageOf) -> Response:
    """Read a wallet's ledger: consistent at once, newest first."""
    digest = list_digest("transactions", wallet_id, page.order)
    (after,) = page.start(digest, [0], [_VERSION_MAX])
    user_id = caller_of(request).user_id
    async with context_of(request).reader.connect() as connection:
        rows = await read_queries.list_entries(connection, wallet_id, user_id, page.order, after, page.limit + 1)
        if not rows and await read_queries.get_wallet(connection, wallet_id, user_id) is None:
            raise WalletNotFound(wallet_id)
    cursor, headers = page.next(digest, rows, ["wallet_version"])
    return _list([entry_json(row) for row in rows[: page.limit]], cursor, headers)


@router.get(
    "/users/{user_id:path}/wallets",
    dependencies=[needs(WALLETS_READ)],
    response_model=WalletList,
    responses=LIST_ERRORS,
)
async def get_user_wallets(request: Request, user_id: PathUserId, page: PageOf) -> Response:
    """List a user's wallets, newest first; a user without wallets has an empty list.

    A wallet that is created while a client reads its user's list, page by page, may be on none of the pages.
    """
    check_user(caller_of(request), user_id)
    digest = list_digest("wallets", user_id, page.order)
    (after,) = page.start(digest, [UUID(int=0)], [UUID(int=2**128 - 1)])
    async with context_of(request).reader.connect() as connection:
        rows = await read_queries.list_wallets(connection, user_id, page.order, after, page.limit + 1)
    cursor, headers = page.next(digest, rows, ["id"])
    return _list([wallet_json(row) for row in rows[: page.limit]], cursor, headers)


def _common(request: Request, caller: Caller, body: CreateWalletBody | FundBody, target: str) -> dict[str, Any]:
    required = context_of(request).settings.idempotency_key_required
    return {
        "path": path_of(request),
        "claim": read_claim(target, caller.id, request.headers.get("idempotency-key"), body, required=required),
        "traceparent": read_traceparent(request.headers),
        "metadata": body.metadata,
    }


def _money(request: Request, wallet_id: UUID, body: FundBody, operation: str) -> dict[str, Any]:
    caller = caller_of(request)
    return {
        **_common(request, caller, body, f"/wallets/{wallet_id}/{operation}"),
        "caller": caller,
        "wallet_id": wallet_id,
        "amount": body.amount,
        "currency": body.currency,
        "reference": body.reference,
        "if_match": read_if_match(request.headers.get("if-match")),
    }


def _respond(operation: str, reply: Reply) -> Response:
    metrics.operations.labels(operation, reply.outcome).inc()
    return Response(reply.body, reply.status, {"Content-Type": JSON, **reply.headers})


def _list(items: list[Mapping[str, Any]], cursor: str | None, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps({"items": items, "next_cursor": cursor}), media_type=JSON, headers=headers)
