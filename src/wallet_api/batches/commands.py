"""From the operations of a batch request to commands: each is checked as its own route checks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import Caller
from common.http.authorization import check_scope
from common.problems import Problem
from wallet_api.batches.bodies import BATCHED, MEMBERS, BatchBody
from wallet_api.operation_objects import Objects, fields_from, find_objects
from wallet_api.operations.operation import Operation
from wallet_api.requests import claim_of


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
    objects = await _find_objects(body, sender, reader)
    planned: list[Operation | Problem] = []
    for number, item in enumerate(body.operations):
        try:
            planned.append(_command(item, body.id_of(number), objects, sender))
        except Problem as refusal:
            planned.append(refusal)
    return planned


def _command(item: Any, id_: UUID, objects: Objects, sender: Sender) -> Operation:
    """Return the command of an operation.

    Raises:
        Forbidden: the caller lacks a scope.
        HoldNotFound, TransactionNotFound: there is no such object.
    """
    operation = BATCHED[item.op]
    check_scope(sender.caller, sender.scopes[item.op])
    target, left_out = operation.target_of(id_), (*MEMBERS, BatchBody.ID_FIELDS[item.op])
    fields = {name: value for name, value in vars(item).items() if name not in left_out}
    is_claimed = item.key is not None and not sender.is_preview
    command = operation(
        **fields,
        **fields_from(objects, operation, id_, item, sender.caller),
        path=target,
        claim=claim_of(operation.method, target, sender.caller.id, item.key, own_body(item)) if is_claimed else None,
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


async def _find_objects(body: BatchBody, sender: Sender, reader: AsyncEngine) -> Objects:
    """Return the objects of all operations; their ids differ in all collections."""
    ids: dict[str, set[UUID]] = {}
    for number, item in enumerate(body.operations):
        ids.setdefault(BATCHED[item.op].collection, set()).add(body.id_of(number))
    found: dict[UUID, Any] = {}
    for collection, wanted in ids.items():
        found.update(await find_objects(reader, collection, wanted, sender.caller))
    return found
