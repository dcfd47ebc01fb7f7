"""The answers to requests agree with what the database has of them."""

import json
from collections import defaultdict
from decimal import Decimal
from typing import Any

import asyncpg

from faults.driver import Driver
from faults.requests import Operation

# Every request has its key as its reference, or as its wallet's external id.
_EFFECTS = """
    SELECT reference AS key, count(DISTINCT transaction_id) AS times, min(transaction_id::text) AS id
    FROM wallet.wallet_transactions WHERE reference IS NOT NULL GROUP BY reference
    UNION ALL
    SELECT external_id, 1, id::text FROM wallet.wallets WHERE external_id IS NOT NULL
"""

_KEYS = "SELECT key, reply_status, reply_body FROM wallet.idempotency_keys"


async def check_operations(connection: asyncpg.Connection, driver: Driver) -> list[str]:
    """Compare the answer to each request with the database, which has no effect that no client asked for."""
    effects = {row["key"]: row for row in await connection.fetch(_EFFECTS)}
    stored = {row["key"]: row for row in await connection.fetch(_KEYS)}
    found = [
        line
        for operation in driver.operations
        for line in answer_violations(operation, effects.get(operation.key), stored.get(operation.key))
    ]
    strangers = effects.keys() - {operation.key for operation in driver.operations}
    return found + [f"no client sent {key}" for key in strangers]


def answer_violations(operation: Operation, effect: Any, stored: Any) -> list[str]:
    """Return how the answer to a request differs from its effect and from the reply under its key, or from none."""
    where = f"{operation.path} {operation.key} {operation.attempts}"
    if operation.outcome == "wrong":
        return []  # The driver has noted it.
    if operation.outcome == "unknown":
        return [f"{where}: still unknown"]
    found = []
    if (effect is not None) != (operation.outcome == "ok"):
        found.append(f"{where}: {operation.outcome}, and {'it is' if effect else 'nothing is'} there")
    elif effect and effect["times"] != operation.effects:
        found.append(f"{where}: has {effect['times']} effects")
    elif effect and effect["id"].encode() not in operation.reply:
        found.append(f"{where}: was told of another one than {effect['id']}")
    if not stored or (stored["reply_status"], stored["reply_body"]) != (operation.status, operation.reply):
        found.append(f"{where}: was answered {operation.status} {operation.reply!r}, and its key has {stored}")
    return found


async def check_reversals(connection: asyncpg.Connection, driver: Driver) -> list[str]:
    """The reversals of each transaction moved back what their replies tell, and no more than the transaction did."""
    replies = [json.loads(operation.reply) for operation in driver.operations if operation.outcome == "ok"]
    moved = {reply["transaction_id"]: reply for reply in replies if "transaction_id" in reply}
    told: dict[str, Decimal] = defaultdict(Decimal)
    for reply in moved.values():
        if reply["type"] == "REVERSAL":
            told[reply["reverses_transaction_id"]] += Decimal(reply["amount"])
    rows = await connection.fetch(
        "SELECT reverses_transaction_id::text AS id, sum(amount_minor) AS back_minor FROM wallet.wallet_transactions"
        " WHERE reverses_transaction_id IS NOT NULL AND amount_minor > 0 GROUP BY reverses_transaction_id"
    )
    found = {row["id"]: row["back_minor"] / 100 for row in rows}
    return [
        f"transaction {id_}: {found.get(id_)} was reversed, {told[id_]} by the replies, of {moved[id_]['amount']}"
        for id_ in found.keys() | told.keys()
        if not found.get(id_) == told[id_] <= Decimal(moved[id_]["amount"])
    ]
