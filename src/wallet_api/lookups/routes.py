"""The routes that look transactions up: parse, read one page, reply."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BeforeValidator

from common.access.caller import WALLETS_READ, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.pagination import PageOf, PageRequest, list_digest
from common.http.paths import PathUuid
from common.identifiers import parse_uuid
from common.problems import ValidationProblem
from common.text import check_text
from wallet_api.commands import IdempotencyKey
from wallet_api.context import context_of
from wallet_api.errors import TransactionNotFound
from wallet_api.lookups import queries
from wallet_api.lookups.metadata import PARAMETER, metadata_of
from wallet_api.lookups.queries import Legs
from wallet_api.lookups.replies import TransactionList, TransactionOut, transaction_json
from wallet_api.openapi import LIST_ERRORS, TRANSACTION_ERRORS
from wallet_api.replies import JSON, list_json

router = APIRouter(tags=["transactions"], route_class=ScopedRoute, dependencies=[needs(WALLETS_READ)])

_VERSION_MAX: Final = 2**63 - 1
_FILTERS: Final = ("reference", "external_id", "idempotency_key", "batch_id", "wallet_id")
_TOGETHER: Final = [{name} for name in _FILTERS] + [{"external_id", "wallet_id"}, {"wallet_id", "metadata"}]

Id = Annotated[UUID, BeforeValidator(parse_uuid)]
Text = Annotated[str, Query(min_length=1, max_length=255), AfterValidator(check_text)]
Filters = Mapping[str, Any]


def filter_of(
    request: Request,
    reference: Annotated[Text | None, Query(description="The `reference` of the request, exactly.")] = None,
    external_id: Annotated[
        Text | None,
        Query(description="The `external_id` of the request, exactly; with `wallet_id`, of that acting wallet only."),
    ] = None,
    idempotency_key: Annotated[
        Text | None,
        Query(
            description="The `Idempotency-Key` of the caller's own request, as long as it is kept. That of an atomic"
            " batch finds the transactions of all its operations."
        ),
    ] = None,
    batch_id: Annotated[
        Id | None, Query(description="The `batch_id` of a batch request; finds the transactions of all its operations.")
    ] = None,
    wallet_id: Annotated[Id | None, Query()] = None,
) -> Filters:
    """Return the filters that the query names, with their values; a FastAPI dependency.

    Raises:
        ValidationProblem: the query names none, or some that don't go together; or one of metadata is not valid.
    """
    values = dict(zip(_FILTERS, (reference, external_id, idempotency_key, batch_id, wallet_id), strict=True))
    named: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if metadata := metadata_of(request.query_params):
        named["metadata"] = metadata
    if named.keys() not in _TOGETHER:
        field = list(named)[-1] if named else _FILTERS[0]
        alone = ", ".join(_FILTERS)
        raise ValidationProblem.of(field, f"send one of {alone}; or wallet_id with external_id or with metadata[key]")
    return named


FilterOf = Annotated[Filters, Depends(filter_of)]


@router.get("/transactions/{transaction_id}", response_model=TransactionOut, responses=TRANSACTION_ERRORS)
async def get_transaction(request: Request, transaction_id: PathUuid) -> Response:
    """Read a transaction with its legs.

    A caller that is bound to a user reads the legs of that user's wallets only. Without such a leg the transaction is
    like one that does not exist.
    """
    async with context_of(request).reader.connect() as connection:
        legs = await queries.get_transaction(connection, transaction_id, caller_of(request).user_id)
    if legs is None:
        raise TransactionNotFound(transaction_id)
    return Response(orjson.dumps(transaction_json(legs)), media_type=JSON)


@router.get(
    "/transactions",
    response_model=TransactionList,
    responses=LIST_ERRORS,
    openapi_extra={"parameters": [PARAMETER]},
)
async def get_transactions(request: Request, page: PageOf, chosen: FilterOf) -> Response:
    """Find transactions by one of the filters, newest first; of one wallet also by external id or by metadata.

    Transactions of a wallet are in the order of its versions, others in the order of their ids. A search that finds
    nothing that the caller may read has an empty page. An external id and a batch request belong to the wallet that
    acted: a caller that may not read that wallet does not find the transaction by them. A transaction that commits
    while a client reads the pages of a reference may be on none of them.

    A search by metadata reads at most 1,000 versions of the wallet for a page. Go on until `next_cursor` is null.
    """
    digest = list_digest("lookup", *chosen.items(), page.order)
    found, read_to = await _find(request, page, digest, chosen)
    sort_key = "sort_version" if _is_by_version(chosen) else "transaction_id"
    cursor, headers = page.next(digest, [legs[0] for legs in found], [sort_key], read_to)
    items = [transaction_json(legs) for legs in found[: page.limit]]
    return Response(list_json(items, cursor), media_type=JSON, headers=headers)


def _is_by_version(chosen: Filters) -> bool:
    return "wallet_id" in chosen and "external_id" not in chosen


async def _find(request: Request, page: PageRequest, digest: bytes, chosen: Filters) -> tuple[list[Legs], int | None]:
    """Return the transactions of the page, and one more if there is a next page.

    With them comes the version after which a search by metadata goes on that did not fill the page and is not over.
    """
    caller = caller_of(request)
    lowest, highest = (0, _VERSION_MAX) if _is_by_version(chosen) else (UUID(int=0), UUID(int=2**128 - 1))
    (after,) = page.start(digest, [lowest], [highest])
    rest = caller.user_id, page.order, after, page.limit + 1
    async with context_of(request).reader.connect() as connection:
        match chosen:
            case {"external_id": external_id, "wallet_id": wallet_id}:
                return await queries.list_by_external_id_of_wallet(connection, external_id, wallet_id, *rest), None
            case {"wallet_id": wallet_id, "metadata": metadata}:
                return await queries.list_by_metadata(connection, wallet_id, metadata, *rest)
            case {"wallet_id": wallet_id}:
                return await queries.list_by_wallet(connection, wallet_id, *rest), None
            case {"idempotency_key": text}:
                key = IdempotencyKey(caller.id, text)
                return await queries.list_by_idempotency_key(connection, key, *rest), None
            case _:
                ((name, value),) = chosen.items()
                return await queries.list_by_value(connection, name, value, *rest), None
