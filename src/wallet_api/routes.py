"""The routes that create and read wallets: parse, run one use case or query, reply."""

from typing import Annotated, Final, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request, Response

from common.access.caller import WALLETS_READ, WALLETS_WRITE, caller_of, check_user
from common.http.authorization import ScopedRoute, needs
from common.http.pagination import PageOf, encode_cursor, list_digest
from common.http.paths import PathUserId, PathUuid, path_uuid
from common.problems import ValidationProblem
from wallet_api import read_queries
from wallet_api.bodies import CreateWalletBody
from wallet_api.commands import CreateWallet
from wallet_api.context import context_of
from wallet_api.errors import WalletNotFound
from wallet_api.holds.queries import get_wallet_with_holds
from wallet_api.holds.replies import EXPANDED_HOLDS_MAX, hold_out_json, holds_digest
from wallet_api.openapi import LIST_ERRORS, READ_ERRORS, post_documentation
from wallet_api.operation_routes import command_fields, respond
from wallet_api.replies import JSON, entry_json, etag, list_json, wallet_json
from wallet_api.reply_models import EntryList, WalletList, WalletOut
from wallet_api.requests import IdempotencyKeyHeader, is_match, read_body, read_preview

hot_router = APIRouter(tags=["wallets"], route_class=ScopedRoute)
"""The routes of the fast path. Dependencies document what their endpoints read from the request."""
router = APIRouter(tags=["wallets"], route_class=ScopedRoute)

_WALLET: Final = "/wallets/{wallet_id}"
_VERSION_MAX: Final = 2**63 - 1


def _create_parameters(idempotency_key: IdempotencyKeyHeader = None) -> None:
    """Document what `post_wallet` reads."""


def _read_parameters(
    wallet_id: PathUuid,
    if_none_match: Annotated[
        str | None, Header(description="Ignored with `expand`: holds expire while the wallet's version stays.")
    ] = None,
    expand: Annotated[
        Literal["holds"] | None, Query(description="Read the wallet with its open holds, as of one moment.")
    ] = None,
) -> None:
    """Document what `get_wallet` reads."""


@hot_router.post(
    "/wallets",
    dependencies=[needs(WALLETS_WRITE), Depends(_create_parameters)],
    **post_documentation(CreateWalletBody, WalletOut, 201),
)
async def post_wallet(request: Request) -> Response:
    """Create a wallet for a user."""
    caller = caller_of(request)
    if read_preview(request):
        raise ValidationProblem.of("preview", "must not be true: the creation of a wallet has no preview")
    body = await read_body(request, CreateWalletBody)
    check_user(caller, body.user_id)
    command = CreateWallet(**command_fields(request, caller, body, "/wallets"))
    return respond("create", await context_of(request).creations.submit(command))


@hot_router.get(
    _WALLET,
    dependencies=[needs(WALLETS_READ), Depends(_read_parameters)],
    response_model=WalletOut,
    responses=READ_ERRORS,
)
async def get_wallet(request: Request) -> Response:
    """Read a wallet and its balance, as of the last commit."""
    wallet_id = path_uuid(request, "wallet_id")
    # Nearly no request has a query.
    if request.scope["query_string"] and "expand" in request.query_params:
        return await _wallet_with_holds(request, wallet_id)
    async with context_of(request).reader.connect() as connection:
        row = await read_queries.get_wallet(connection, wallet_id, caller_of(request).user_id)
    if row is None:
        raise WalletNotFound(wallet_id)
    headers = {"ETag": etag(row["version"])}
    if is_match(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(wallet_json(row)), media_type=JSON, headers=headers)


async def _wallet_with_holds(request: Request, wallet_id: UUID) -> Response:
    if request.query_params["expand"] != "holds":
        raise ValidationProblem.of("expand", "must be holds")
    most, user_id = EXPANDED_HOLDS_MAX, caller_of(request).user_id
    async with context_of(request).reader.connect() as connection:
        row, holds = await get_wallet_with_holds(connection, wallet_id, user_id, most + 1)
    if row is None:
        raise WalletNotFound(wallet_id)
    cursor = None
    if len(holds) > most:
        cursor = encode_cursor([holds[most - 1]["id"]], holds_digest(wallet_id, "open", "desc"))
    page = {"items": [hold_out_json(hold) for hold in holds[:most]], "next_cursor": cursor}
    body = orjson.dumps({**wallet_json(row), "holds": page})
    return Response(body, media_type=JSON, headers={"ETag": etag(row["version"])})


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
    items = [entry_json(row) for row in rows[: page.limit]]
    return Response(list_json(items, cursor), media_type=JSON, headers=headers)


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
    items = [wallet_json(row) for row in rows[: page.limit]]
    return Response(list_json(items, cursor), media_type=JSON, headers=headers)
