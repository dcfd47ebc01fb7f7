"""The routes of a wallet's past: parse, read, reply."""

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response

from common.access.caller import WALLETS_READ, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.paths import PathUuid
from common.moments import Moment
from common.problems import ValidationProblem
from wallet_api.context import context_of
from wallet_api.errors import NotAcceptable
from wallet_api.openapi import READ_ERRORS, STATEMENT_ERRORS
from wallet_api.replies import JSON
from wallet_api.statements.formats import CSV, FORMATS, XML, read_statement
from wallet_api.statements.media_types import preferred
from wallet_api.statements.periods import read_balance_at, read_balance_of
from wallet_api.statements.replies import BalanceOut, StatementOut, balance_json
from wallet_api.statements.streaming import StatementResponse

router = APIRouter(tags=["statements"], route_class=ScopedRoute, dependencies=[needs(WALLETS_READ)])

_VERSION_MAX: Final = 2**63 - 1

_DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The statement, in the media type that `Accept` prefers: JSON, CSV (RFC 4180) or camt.053.001.08"
        " (ISO 20022).",
        "content": {media_type: {"schema": {"type": "string"}} for media_type in (CSV, XML)},
    },
    **STATEMENT_ERRORS,
}


@router.get("/wallets/{wallet_id}/balance", response_model=BalanceOut, responses=READ_ERRORS)
async def get_balance(
    request: Request,
    wallet_id: PathUuid,
    at: Annotated[Moment | None, Query(description="Not in the future: RFC 3339 with an offset.")] = None,
    version: Annotated[int | None, Query(ge=1, le=_VERSION_MAX)] = None,
) -> Response:
    """Read a wallet's balance at a time or a version, or now.

    The balance at a time is that of the wallet's highest version of this time or an earlier one. Before its creation
    the wallet has version 0 and no balance. A transaction that is under way may still write a version of an earlier
    time; `final` says that none can. The balance at a version is always final.
    """
    reader, user_id = context_of(request).reader, caller_of(request).user_id
    if version is None:
        found = await read_balance_at(reader, wallet_id, user_id, at)
    elif at is None:
        found = await read_balance_of(reader, wallet_id, user_id, version)
    else:
        raise ValidationProblem.of("version", "send at or version, not both")
    return Response(orjson.dumps(balance_json(wallet_id, found)), media_type=JSON)


@router.get("/wallets/{wallet_id}/statement", response_model=StatementOut, responses=_DOCUMENTED)
async def get_statement(
    request: Request,
    wallet_id: PathUuid,
    start: Annotated[Moment, Query(alias="from", description="The first moment: RFC 3339 with an offset.")],
    end: Annotated[
        Moment, Query(alias="to", description="The first moment after it, not in the future: RFC 3339 with an offset.")
    ],
) -> Response:
    """Read a wallet's statement of a period: the opening balance, the entries, the closing balance.

    The entries are those of the versions behind the opening's up to the closing's. The closing balance is the opening
    balance of the statement that begins where this one ends, if this one is `final`. A statement has at most 100000
    entries. It is sent while it is read: one that breaks off has no end, and must be asked for again.
    """
    media_type = preferred(", ".join(request.headers.getlist("accept")), list(FORMATS))
    if media_type is None:
        raise NotAcceptable(list(FORMATS))
    reader, user_id = context_of(request).reader, caller_of(request).user_id
    content_type, write = FORMATS[media_type]
    parts = await read_statement(reader, wallet_id, user_id, start, end, write)
    return StatementResponse(parts, headers={"Content-Type": content_type, "Vary": "Accept"})
