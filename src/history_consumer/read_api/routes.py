"""The history API's routes: parse, read one page, reply.

The history is eventually consistent with the wallets. It can't tell a wallet that doesn't exist from a wallet whose
events haven't arrived yet. So an unknown wallet has an empty page that isn't complete, and never a 404.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from common.access.caller import HISTORY_READ, caller_of, check_user
from common.http.authorization import ACCESS_ERRORS, ScopedRoute, needs
from common.http.openapi import problem_documentation
from common.http.pagination import Order, PageOf, PageRequest, list_digest
from common.http.paths import PathUserId, PathUuid
from common.moments import Moment
from history_consumer.projection import VERSION_MAX, EventType
from history_consumer.read_api import page_queries
from history_consumer.read_api.context import HistoryApiContext, context_of
from history_consumer.read_api.errors import HistoryBehind
from history_consumer.read_api.page_queries import Filters, Page, WantedVersion
from history_consumer.read_api.replies import JSON, HistoryPage, page_json

router = APIRouter(tags=["history"], route_class=ScopedRoute, dependencies=[needs(HISTORY_READ)])

_PROBLEM_EXAMPLE: Final = {
    "type": HistoryBehind.type_uri(),
    "title": HistoryBehind.title,
    "status": HistoryBehind.status,
    "detail": "min_version: the history of this wallet is complete up to version 3, not 4 yet. Retry later.",
    "instance": "/history/wallets/0198c2a5-…",
    "code": HistoryBehind.code,
}
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    **ACCESS_ERRORS,
    422: problem_documentation("validation-error", _PROBLEM_EXAMPLE),
    503: problem_documentation("history-behind, unavailable; with Retry-After", _PROBLEM_EXAMPLE),
}


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
    request: Request, wallet_id: PathUuid, page: PageOf, filters: FiltersOf, min_version: MinVersion = None
) -> Response:
    """Read a wallet's history, newest first.

    The history up to `as_of_version` is final: no item up to there is missing, and none comes later. `complete` says
    that this is the highest version of the wallet in the history. A wallet that the history doesn't know has no items,
    `complete` false, `as_of_version` 0. So has, for a caller that is bound to a user, a wallet of another user.
    """
    digest = list_digest("wallet", wallet_id, page.order, *filters.canonical())
    (after,) = page.start(digest, [0], [VERSION_MAX])
    context, user_id = context_of(request), caller_of(request).user_id
    read = partial(_read_wallet_page, context, wallet_id, user_id, page.order, after, filters, page.limit + 1)
    found = await read()
    if min_version is not None and (found.as_of_version or 0) < min_version:
        wanted = WantedVersion(wallet_id, user_id, min_version)
        await context.versions.wait(wanted, context.settings.history_min_version_wait_seconds)
        found = await read()
        if (found.as_of_version or 0) < min_version:
            raise HistoryBehind(
                f"min_version: the history of this wallet is complete up to version {found.as_of_version},"
                f" not {min_version} yet. Retry later."
            )
    return _respond(page, found, digest, ["wallet_version"])


@router.get("/history/users/{user_id:path}", response_model=HistoryPage, responses=_ERRORS)
async def get_user_history(request: Request, user_id: PathUserId, page: PageOf, filters: FiltersOf) -> Response:
    """Read the history of all of a user's wallets, in the order of time, newest first.

    Events of different wallets are published independently. So an event may arrive late, with its place before or
    between items that were already read. `complete` (no wallet of the user misses a version) doesn't rule that out.
    `event_count` shows it: if it is the same on the first and on the last page, the pages have all items of the
    history. If it has grown, read again. A client that follows events as they arrive reads each wallet's history in
    ascending order, up to its `as_of_version`.
    """
    check_user(caller_of(request), user_id)
    digest = list_digest("user", user_id, page.order, *filters.canonical())
    event_id, wallet_id = page.start(digest, [UUID(int=0)] * 2, [UUID(int=2**128 - 1)] * 2)
    async with context_of(request).reader.connect() as connection:
        found = await page_queries.user_page(
            connection, user_id, page.order, (event_id, wallet_id), filters, page.limit + 1
        )
    return _respond(page, found, digest, ["event_id", "wallet_id"])


async def _read_wallet_page(
    context: HistoryApiContext,
    wallet_id: UUID,
    user_id: str | None,
    order: Order,
    after: int,
    filters: Filters,
    limit: int,
) -> Page:
    async with context.reader.connect() as connection:
        return await page_queries.wallet_page(connection, wallet_id, user_id, order, after, filters, limit)


def _respond(page: PageRequest, found: Page, digest: bytes, sort_key: Sequence[str]) -> Response:
    cursor, headers = page.next(digest, found.rows, sort_key)
    return Response(page_json(found, page.limit, cursor), media_type=JSON, headers=headers)
