"""The JSON of batch requests: what came of each operation."""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson

from wallet_api.operations.atomic_batch import AtomicBatch
from wallet_api.operations.operation import LedgerTransaction, Operation
from wallet_api.replies import Reply, transaction_reply


def operation_reply(command: Operation, transactions: Sequence[LedgerTransaction], created_at: datetime) -> Reply:
    """Return the reply to an operation, or to an atomic batch, that made these transactions."""
    if not isinstance(command, AtomicBatch):
        return transaction_reply(transactions[-1], created_at)
    replies = [transaction_reply(made, created_at) for made in command.told(transactions)]
    assert command.batch_id is not None
    return Reply(HTTPStatus.OK, batch_json(command.batch_id, replies), {})


def batch_json(batch_id: UUID, replies: Sequence[Reply], *, is_preview: bool = False) -> bytes:
    """Return the JSON of a batch request from the replies to its operations, which are encoded already."""
    body = {"batch_id": str(batch_id), "items": [_item_json(reply) for reply in replies]}
    return orjson.dumps({**body, "preview": True} if is_preview else body)


def _item_json(reply: Reply) -> dict[str, Any]:
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Type"}
    member = "body" if reply.status < HTTPStatus.BAD_REQUEST else "problem"
    return {"status": reply.status, member: orjson.Fragment(reply.body), "headers": headers}
