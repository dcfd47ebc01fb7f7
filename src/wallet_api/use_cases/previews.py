"""Previews: what an operation would do now. Pure."""

from collections.abc import Collection
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import orjson

from wallet_api.operations.operation import LedgerTransaction
from wallet_api.replies import Reply

PREVIEWED: Final = "previewed"
"""The outcome of each preview, whatever it tells: it is neither an operation nor a refusal of one."""


def preview_reply(reply: Reply, transactions: Collection[LedgerTransaction], hold_ids: Collection[UUID]) -> Reply:
    """Return the reply to a preview: that of the operation, without what only the operation makes.

    The ids that it would make are null. There is neither an ETag nor a Location: no wallet is at that version yet.

    Args:
        reply: to the operation.
        transactions: that it would make; none if it is refused.
        hold_ids: of the holds that exist.
    """
    if not transactions:
        return replace(reply, outcome=PREVIEWED, is_decided=False)
    made = {str(transaction.id) for transaction in transactions}
    made |= {str(hold.id) for transaction in transactions if (hold := transaction.hold) and hold.id not in hold_ids}
    body = _without(made, orjson.loads(reply.body))
    return Reply(HTTPStatus.OK, orjson.dumps({**body, "preview": True}), {}, PREVIEWED, is_decided=False)


def _without(ids: Collection[str], value: Any) -> Any:
    """Return the JSON value with null for each of the ids."""
    if isinstance(value, dict):
        return {name: _without(ids, member) for name, member in value.items()}
    if isinstance(value, list):
        return [_without(ids, item) for item in value]
    return None if isinstance(value, str) and value in ids else value
