"""Idempotency keys: one request, one effect, one reply.

A transaction claims a key first, before it locks any wallet, and writes it last, with its reply. So a request that
failed leaves no key behind. No transaction waits for a claim, so claims can't deadlock. (The `Idempotency-Key` header:
IETF draft-ietf-httpapi-idempotency-key-header.)
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import orjson

from common import failpoints
from wallet_api.commands import CommandT
from wallet_api.errors import IdempotencyKeyInFlight, IdempotencyKeyReused
from wallet_api.idempotency import key_queries
from wallet_api.idempotency.key_queries import KeyRow
from wallet_api.replies import Reply
from wallet_api.slots import Slot

_REPLAYED: Final = {"Idempotent-Replayed": "true"}


def request_hash(method: str, path: str, body: Mapping[str, Any]) -> bytes:
    """Return what tells one request from another: SHA-256 of method, path and body as the server understood them.

    The client's spelling doesn't count: the case of ids, the order of keys, and defaults given or left out. An amount
    may be a number or a string, with or without zeros at its end. `metadata` is kept as it came: `1.0` isn't `1` in it.
    Headers aren't part of the request: a request repeated with another `If-Match` gets the first reply.
    """
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), canonical))).digest()


async def claim(connection: asyncpg.Connection, slots: Sequence[Slot[CommandT]]) -> list[Slot[CommandT]]:
    """Claim the commands' keys, and return the slots whose command must run.

    A command is answered here if its key has a reply, or if another transaction has claimed its key.

    Raises:
        ValueError: two commands have the same key; the caller puts them into different batches.
    """
    claimed = {slot.command.claim.key: slot for slot in slots if slot.command.claim}
    if len(claimed) < sum(slot.command.claim is not None for slot in slots):
        raise ValueError("the idempotency keys of one list must differ")
    found = await key_queries.claim_keys(connection, claimed) if claimed else {}
    for key, (is_claimed, row) in found.items():
        if row:
            _replay(claimed[key], row)
        elif not is_claimed:
            claimed[key].refuse(IdempotencyKeyInFlight())
    failpoints.hit("api.claimed")
    return [slot for slot in slots if not slot.reply]


def _replay(slot: Slot[CommandT], row: KeyRow) -> None:
    assert slot.command.claim is not None
    if row.request_hash == slot.command.claim.request_hash:
        slot.reply = Reply(row.status, row.body, {**row.headers, **_REPLAYED}, "replayed")
    else:
        slot.refuse(IdempotencyKeyReused("Idempotency-Key: this key belongs to another request. Send a new key."))


def decided_keys(slots: Sequence[Slot[CommandT]]) -> list[tuple[CommandT, KeyRow]]:
    """Return the rows to be written: of each command that has a key and is decided."""
    return [
        (slot.command, KeyRow(claim.key, claim.request_hash, reply.status, reply.headers, reply.body))
        for slot in slots
        if (claim := slot.command.claim) and (reply := slot.reply) and reply.is_decided
    ]


async def store(connection: asyncpg.Connection, slots: Sequence[Slot[CommandT]]) -> None:
    """Write the keys of decided commands; where there are transactions, `queries.write_transactions` writes them."""
    if keys := decided_keys(slots):
        await key_queries.insert_keys(connection, [row for _, row in keys])
