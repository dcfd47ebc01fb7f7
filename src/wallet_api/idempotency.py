"""Idempotency keys: one request, one effect, one answer.

A key is claimed first, before any wallet is locked, and written last, with its reply, in one transaction: so a
request that failed leaves no key behind. Nobody waits for a claim, so nobody waits in a circle. (The
`Idempotency-Key` header: IETF draft-ietf-httpapi-idempotency-key-header.)
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import asyncpg
import orjson

from common.money import without_zeros
from common.problems import MEDIA_TYPE, Problem
from wallet_api import queries
from wallet_api.commands import Command, IdempotencyClaim
from wallet_api.errors import IdempotencyKeyInFlight, IdempotencyKeyReused
from wallet_api.replies import Reply

CommandT = TypeVar("CommandT", bound=Command)

REPLAYED = {"Idempotent-Replayed": "true"}


def request_hash(method: str, path: str, body: Mapping[str, Any]) -> bytes:
    """Return what tells one request from another: SHA-256 of method, path and body as they were understood.

    So how the client spelled them doesn't count: the case of ids, the order of keys, defaults given or left out, an
    amount as a number or a string, with or without zeros at its end. `metadata` is kept as it came, and so `1.0` isn't
    `1` in it. Headers aren't part of the request: one that is repeated with another `If-Match` gets the first answer.
    """
    amount = body.get("amount")
    understood = {**body, "amount": without_zeros(amount)} if isinstance(amount, str) else body
    canonical = orjson.dumps(understood, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), canonical))).digest()


async def claim(connection: asyncpg.Connection, commands: Sequence[Command]) -> dict[str, Reply | Problem]:
    """Claim the commands' keys, and return the answers of those that are already answered, or claimed by others.

    Raises:
        ValueError: two commands have the same key; the caller asks for them one after the other.
    """
    claims = {command.claim.key: command.claim for command in commands if command.claim}
    if not claims:
        return {}
    if len(claims) < sum(command.claim is not None for command in commands):
        raise ValueError("the idempotency keys of one list must differ")
    found = await queries.claim_keys(connection, claims)
    return {key: _answer(claims[key], stored) for key, (is_ours, stored) in found.items() if stored or not is_ours}


def _answer(claim: IdempotencyClaim, stored: tuple[bytes, Reply] | None) -> Reply | Problem:
    if stored is None:
        return in_flight()
    digest, reply = stored
    if digest != claim.request_hash:
        return IdempotencyKeyReused("Idempotency-Key: this key belongs to another request. Take a new key.")
    return Reply(reply.status, reply.body, {**reply.headers, **REPLAYED})


def decided(
    commands: Sequence[CommandT], outcomes: Sequence[Reply | Problem]
) -> list[tuple[CommandT, IdempotencyClaim, Reply]]:
    """Return the replies to be stored: of each command that has a key and is decided."""
    return [
        (command, command.claim, reply)
        for command, outcome in zip(commands, outcomes, strict=True)
        if command.claim and (reply := decided_reply(command, outcome))
    ]


def in_flight() -> IdempotencyKeyInFlight:
    """Return the problem that somebody else's request with this key isn't answered yet."""
    return IdempotencyKeyInFlight("The first request with this key has no answer yet. Ask again with it.")


async def store(connection: asyncpg.Connection, replies: Sequence[tuple[Command, IdempotencyClaim, Reply]]) -> None:
    """Write the replies of decided commands under their keys, where nothing else is to be written with them."""
    if replies:
        await queries.insert_replies(connection, [(claim, reply) for _, claim, reply in replies])


def decided_reply(command: Command, outcome: Reply | Problem) -> Reply | None:
    """Return the outcome as a reply to be given again, or None where asking again may end otherwise."""
    if isinstance(outcome, Reply):
        return outcome
    if outcome.decided:
        return Reply(outcome.status, outcome.body(command.path), {"Content-Type": MEDIA_TYPE})
    return None
