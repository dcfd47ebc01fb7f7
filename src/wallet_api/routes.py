"""The wallet API's routes: parse, run one use case, answer."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BeforeValidator

from common.http.fast_path import Reader, header, path_uuid
from common.http.pagination import (
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    decode_cursor,
    encode_cursor,
    first_keyset,
    list_digest,
    next_link,
)
from common.http.paths import path_of, path_user_id
from common.identifiers import parse_uuid
from wallet_api import metrics, read_queries
from wallet_api.commands import CreateWallet, Fund, Transfer
from wallet_api.context import WalletApiContext, context_of
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

router = APIRouter(tags=["wallets"])
hot_router = APIRouter(tags=["wallets"])
"""The routes that are answered directly, with what `READERS` read."""

READERS: Final[Mapping[str, Reader]] = {
    "request": lambda request: request,
    "context": lambda request: request.app.state.context,
    "wallet_id": path_uuid("wallet_id"),
    "idempotency_key": header("idempotency-key"),
    "if_match": header("if-match"),
    "if_none_match": header("if-none-match"),
}

ContextOf = Annotated[WalletApiContext, Depends(context_of)]
UserId = Annotated[str, Depends(path_user_id)]
WalletId = Annotated[UUID, BeforeValidator(parse_uuid)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX)]
Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the page before. It is of one list and order; `limit` may change.",
        max_length=1024,
    ),
]
Order = Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first")]


@hot_router.post("/wallets", **post_documentation(CreateWalletBody, WalletOut, 201))
async def post_wallet(request: Request, context: ContextOf, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Make a wallet for a user."""
    body = await read_body(request, CreateWalletBody)
    command = CreateWallet(
        **_common(request, context, idempotency_key, body, "/wallets"),
        user_id=body.user_id,
        currency=body.currency,
        external_id=body.external_id,
    )
    return _respond("create", await context.creations.submit(command))


@hot_router.post("/wallets/{wallet_id}/fund", **post_documentation(FundBody, MoneyOut, 200))
async def post_fund(
    request: Request,
    wallet_id: WalletId,
    context: ContextOf,
    idempotency_key: IdempotencyKeyHeader = None,
    if_match: IfMatchHeader = None,
) -> Response:
    """Bring money in from outside. Locks optimistically."""
    body = await read_body(request, FundBody)
    command = Fund(
        **_money(request, context, idempotency_key, body, f"/wallets/{wallet_id}/fund"),
        wallet_id=wallet_id,
        if_match=read_if_match(if_match),
    )
    return _respond("fund", await context.funds.submit(command))


@hot_router.post("/wallets/{wallet_id}/transfer", **post_documentation(TransferBody, MoneyOut, 200))
async def post_transfer(
    request: Request,
    wallet_id: WalletId,
    context: ContextOf,
    idempotency_key: IdempotencyKeyHeader = None,
    if_match: IfMatchHeader = None,
) -> Response:
    """Send money to another wallet of the same currency. Locks both wallets."""
    body = await read_body(request, TransferBody)
    command = Transfer(
        **_money(request, context, idempotency_key, body, f"/wallets/{wallet_id}/transfer"),
        wallet_id=wallet_id,
        to_wallet_id=body.to_wallet_id,
        if_match=read_if_match(if_match),
    )
    return _respond("transfer", await context.transfers.submit(command))


@hot_router.get("/wallets/{wallet_id}", response_model=WalletOut, responses=READ_ERRORS)
async def get_wallet(
    wallet_id: WalletId, context: ContextOf, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Read a wallet and its balance, as of the last commit."""
    async with context.reader.connect() as connection:
        row = await read_queries.get_wallet(connection, wallet_id)
    if row is None:
        raise WalletNotFound(wallet_id)
    headers = {"ETag": etag(row["version"])}
    if is_match(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(wallet_json(row)), media_type=JSON, headers=headers)


@router.get("/wallets/{wallet_id}/transactions", response_model=EntryList, responses=READ_ERRORS)
async def get_transactions(
    request: Request,
    wallet_id: WalletId,
    context: ContextOf,
    limit: Limit = PAGE_LIMIT_DEFAULT,
    cursor: Cursor = None,
    order: Order = "desc",
) -> Response:
    """Read a wallet's ledger: consistent at once, newest first."""
    digest = list_digest("transactions", wallet_id, order)
    after = decode_cursor(cursor, [int], digest)[0] if cursor else first_keyset(order, 0, 2**63 - 1)
    async with context.reader.connect() as connection:
        rows = await read_queries.list_entries(connection, wallet_id, order, after, limit + 1)
        if not rows and await read_queries.get_wallet(connection, wallet_id) is None:
            raise WalletNotFound(wallet_id)
    last = rows[limit - 1]["wallet_version"] if len(rows) > limit else None
    return _page(request, [entry_json(row) for row in rows[:limit]], last, digest)


@router.get("/users/{user_id:path}/wallets", response_model=WalletList, responses=LIST_ERRORS)
async def get_user_wallets(
    request: Request,
    user_id: UserId,
    context: ContextOf,
    limit: Limit = PAGE_LIMIT_DEFAULT,
    cursor: Cursor = None,
    order: Order = "desc",
) -> Response:
    """List a user's wallets, newest first; a user without wallets has an empty list.

    A wallet that is made while its user's list is read, page by page, may be on none of the pages.
    """
    digest = list_digest("wallets", user_id, order)
    ends = first_keyset(order, UUID(int=0), UUID(int=2**128 - 1))
    after = decode_cursor(cursor, [UUID], digest)[0] if cursor else ends
    async with context.reader.connect() as connection:
        rows = await read_queries.list_wallets(connection, user_id, order, after, limit + 1)
    last = str(rows[limit - 1]["id"]) if len(rows) > limit else None
    return _page(request, [wallet_json(row) for row in rows[:limit]], last, digest)


def _common(
    request: Request, context: WalletApiContext, key: str | None, body: CreateWalletBody | FundBody, target: str
) -> dict[str, Any]:
    required = context.settings.idempotency_key_required
    return {
        "path": path_of(request),
        "claim": read_claim(target, key, body, required=required),
        "traceparent": read_traceparent(request.headers),
        "metadata": body.metadata,
    }


def _money(request: Request, context: WalletApiContext, key: str | None, body: FundBody, target: str) -> dict[str, Any]:
    common = _common(request, context, key, body, target)
    return {**common, "amount": body.amount, "currency": body.currency, "reference": body.reference}


def _respond(operation: str, reply: Reply) -> Response:
    metrics.operations.labels(operation, reply.outcome).inc()
    return Response(reply.body, reply.status, {"Content-Type": JSON, **reply.headers})


def _page(request: Request, items: list[Mapping[str, Any]], last: str | int | None, digest: bytes) -> Response:
    cursor = None if last is None else encode_cursor([last], digest)
    headers = {"Link": next_link(request.scope["raw_path"], request.query_params, cursor)} if cursor else {}
    return Response(orjson.dumps({"items": items, "next_cursor": cursor}), media_type=JSON, headers=headers)
