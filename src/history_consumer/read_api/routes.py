"""The history API's routes: parse, look once, answer.

The history follows the wallets at a small distance. It can't tell a wallet that doesn't exist from one that it
hasn't heard of yet, so an unknown one has an empty page that isn't complete, and never a 404.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from common.http.openapi import problem_documentation
from common.http.pagination import (
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    decode_cursor,
    encode_cursor,
    first_keyset,
    list_digest,
    next_link,
)
from common.http.paths import path_user_id
from common.identifiers import parse_uuid
from history_consumer.projection import VERSION_MAX, EventType
from history_consumer.read_api import page_queries
from history_consumer.read_api.context import HistoryApiContext, context_of
from history_consumer.read_api.errors import HistoryBehind
from history_consumer.read_api.page_queries import Filters, Order, Page
from history_consumer.read_api.replies import JSON, HistoryPage, page_json

router = APIRouter(tags=["history"])

_PROBLEM_EXAMPLE: Final = {
    "type": HistoryBehind.type_uri(),
    "title": HistoryBehind.title,
    "status": HistoryBehind.status,
    "detail": "min_version: the history of this wallet is complete up to version 3, not 4 yet. Ask again.",
    "instance": "/history/wallets/0198c2a5-…",
    "code": HistoryBehind.code,
}
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    422: problem_documentation("validation-error", _PROBLEM_EXAMPLE),
    503: problem_documentation("history-behind, unavailable; with Retry-After", _PROBLEM_EXAMPLE),
}


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that exists in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]

ContextOf = Annotated[HistoryApiContext, Depends(context_of)]
UserId = Annotated[str, Depends(path_user_id)]
WalletId = Annotated[UUID, BeforeValidator(parse_uuid)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX)]
Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the page before. It is of one list, order and filters; `limit` may change.",
        max_length=1024,
    ),
]
OrderOf = Annotated[Order, Query(alias="order", description="`desc`: newest first")]
MinVersion = Annotated[
    int | None,
    Query(ge=1, le=VERSION_MAX, description="Wait until nothing up to this version is missing: read your own writes."),
]


def filters_of(
    event_type: Annotated[
        list[EventType] | None, Query(description="Only these types; may be repeated.", max_length=16)
    ] = None,
    since: Annotated[
        Moment | None, Query(alias="from", description="Created then or later: RFC 3339 with an offset.")
    ] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Created before: RFC 3339 with an offset.")] = None,
) -> Filters:
    """Return the filters that the query names; a FastAPI dependency."""
    return Filters(event_type, since, until)


FiltersOf = Annotated[Filters, Depends(filters_of)]


@router.get("/history/wallets/{wallet_id}", response_model=HistoryPage, responses=_ERRORS)
async def get_wallet_history(
    request: Request,
    wallet_id: WalletId,
    context: ContextOf,
    filters: FiltersOf,
    limit: Limit = PAGE_LIMIT_DEFAULT,
    cursor: Cursor = None,
    order: OrderOf = "desc",
    min_version: MinVersion = None,
) -> Response:
    """Read a wallet's history, newest first.

    What is told up to `as_of_version` is final: no item up to there is missing, and none comes later. `complete` says
    that this is the highest version that the history has heard of. A wallet that the history hasn't heard of has no
    items, `complete` false, `as_of_version` 0.
    """
    digest = list_digest("wallet", wallet_id, order, *filters.canonical())
    after = decode_cursor(cursor, [int], digest)[0] if cursor else first_keyset(order, 0, VERSION_MAX)
    async with context.reader.connect() as connection:
        page = await page_queries.wallet_page(connection, wallet_id, order, after, filters, limit + 1)
    if min_version is not None and (page.as_of_version or 0) < min_version:
        await context.versions.wait(wallet_id, min_version, context.settings.history_min_version_wait_seconds)
        async with context.reader.connect() as connection:
            page = await page_queries.wallet_page(connection, wallet_id, order, after, filters, limit + 1)
        if (page.as_of_version or 0) < min_version:
            raise HistoryBehind(
                f"min_version: the history of this wallet is complete up to version {page.as_of_version},"
                f" not {min_version} yet. Ask again."
            )
    keyset = [page.rows[limit - 1]["wallet_version"]] if len(page.rows) > limit else None
    return _respond(request, page, limit, keyset, digest)


@router.get("/history/users/{user_id:path}", response_model=HistoryPage, responses=_ERRORS)
async def get_user_history(
    request: Request,
    user_id: UserId,
    context: ContextOf,
    filters: FiltersOf,
    limit: Limit = PAGE_LIMIT_DEFAULT,
    cursor: Cursor = None,
    order: OrderOf = "desc",
) -> Response:
    """Read the history of all of a user's wallets, in the order of time, newest first.

    Events of several wallets come by ways of their own. So one may come late, with its place before or between items
    that are told already, and `complete` (no wallet that the history has heard of misses a version) doesn't rule that
    out. `event_count` shows it: if it is the same on the first and on the last page, the pages have all that the
    history had. If it has grown, read again. Who follows events as they come reads each wallet's history upwards, as
    far as its `as_of_version`.
    """
    digest = list_digest("user", user_id, order, *filters.canonical())
    event_id, wallet_id = (
        decode_cursor(cursor, [UUID, UUID], digest)
        if cursor
        else first_keyset(order, [UUID(int=0)] * 2, [UUID(int=2**128 - 1)] * 2)
    )
    async with context.reader.connect() as connection:
        page = await page_queries.user_page(connection, user_id, order, (event_id, wallet_id), filters, limit + 1)
    last = page.rows[limit - 1] if len(page.rows) > limit else None
    return _respond(request, page, limit, [str(last["event_id"]), str(last["wallet_id"])] if last else None, digest)


def _respond(request: Request, page: Page, limit: int, keyset: Sequence[str | int] | None, digest: bytes) -> Response:
    cursor = None if keyset is None else encode_cursor(keyset, digest)
    headers = {}
    if cursor:
        query = {name: request.query_params.getlist(name) for name in request.query_params}
        headers["Link"] = next_link(request.scope["raw_path"], query, cursor)
    return Response(page_json(page, limit, cursor), media_type=JSON, headers=headers)
