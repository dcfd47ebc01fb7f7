"""From the operations of a batch request to commands: each is checked as its own route checks it."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.access.caller import Caller
from common.http.authorization import check_scope
from common.problems import Problem
from wallet_api import read_queries
from wallet_api.batches.bodies import BATCHED, MEMBERS, BatchBody
from wallet_api.errors import HoldNotFound, TransactionNotFound
from wallet_api.operations.operation import Operation
from wallet_api.operations.reverse import Reverse
from wallet_api.requests import claim_of
from wallet_api.reversal_queries import find_originals

Fields = Mapping[str, Any]
"""Fields of a command that the object on which it acts decides."""
Find = Callable[[AsyncConnection, Collection[UUID], Caller], Awaitable[Mapping[UUID, Fields]]]


@dataclass(frozen=True)
class Sender:
    """What all operations of a batch request share.

    Attributes:
        caller: of the request.
        traceparent: of the request.
        batch_id: of the request.
        scopes: which the operations need, by their names.
        is_preview: whether nothing is done. A preview claims no key.
    """

    caller: Caller
    traceparent: str | None
    batch_id: UUID
    scopes: Mapping[str, str]
    is_preview: bool


async def plan(body: BatchBody, sender: Sender, reader: AsyncEngine) -> list[Operation | Problem]:
    """Return the command of each operation, or the problem for which it is refused before it is run."""
    found = await _find_objects(body, sender, reader)
    planned: list[Operation | Problem] = []
    for number, item in enumerate(body.operations):
        try:
            planned.append(_command(item, body.id_of(number), found, sender))
        except Problem as refusal:
            planned.append(refusal)
    return planned


def _command(item: Any, id_: UUID, found: Mapping[UUID, Fields], sender: Sender) -> Operation:
    """Return the command of an operation.

    Raises:
        Forbidden: the caller lacks a scope.
        HoldNotFound, TransactionNotFound: there is no such object.
        ValidationProblem: the legs of a reversal are wrong.
    """
    operation = BATCHED[item.op]
    check_scope(sender.caller, sender.scopes[item.op])
    fields = {name: value for name, value in vars(item).items() if name not in MEMBERS}
    target = operation.target_of(id_)
    if operation.collection in _FINDERS:
        if id_ not in found:
            raise _FINDERS[operation.collection].missing(id_)
        fields.update(found[id_])
    if operation is Reverse:
        del fields["transaction_id"]
        fields["wallet_id"] = Reverse.acting_wallet_id(fields["original"], item, sender.caller)
    is_claimed = item.key is not None and not sender.is_preview
    command = operation(
        **fields,
        path=target,
        claim=claim_of("POST", target, sender.caller.id, item.key, own_body(item)) if is_claimed else None,
        traceparent=sender.traceparent,
        caller=sender.caller,
        if_match=None if item.if_match is None else frozenset({item.if_match}),
        batch_id=sender.batch_id,
    )
    if command.further_scope:
        check_scope(sender.caller, command.further_scope)
    return command


def own_body(item: Any) -> dict[str, Any]:
    """Return the body of the same request to the operation's own route, as JSON."""
    body: dict[str, Any] = item.model_dump(mode="json", exclude={*MEMBERS, BatchBody.ID_FIELDS[item.op]})
    return body


@dataclass(frozen=True)
class _Finder:
    """Finds the objects of a collection that commands act on, other than wallets."""

    find: Find
    missing: Callable[[UUID], Problem]


async def _hold_fields(connection: AsyncConnection, ids: Collection[UUID], caller: Caller) -> dict[UUID, Fields]:
    found = await read_queries.find_holds(connection, ids, caller.user_id)
    return {id_: {"wallet_id": wallet_id, "to_wallet_id": receiver} for id_, (wallet_id, receiver) in found.items()}


async def _original_fields(connection: AsyncConnection, ids: Collection[UUID], caller: Caller) -> dict[UUID, Fields]:
    found = await find_originals(connection, ids, caller)
    return {id_: {"original": original} for id_, original in found.items()}


_FINDERS: Final = {
    "holds": _Finder(_hold_fields, HoldNotFound),
    "transactions": _Finder(_original_fields, TransactionNotFound),
}


async def _find_objects(body: BatchBody, sender: Sender, reader: AsyncEngine) -> dict[UUID, Fields]:
    """Return what the commands need to know of the objects that aren't wallets; their ids differ in all collections."""
    found: dict[UUID, Fields] = {}
    for collection, finder in _FINDERS.items():
        if ids := set(_ids_in(collection, body)):
            async with reader.connect() as connection:
                found.update(await finder.find(connection, ids, sender.caller))
    return found


def _ids_in(collection: str, body: BatchBody) -> Iterator[UUID]:
    for number, item in enumerate(body.operations):
        if BATCHED[item.op].collection == collection:
            yield body.id_of(number)
