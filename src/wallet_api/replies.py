"""The JSON of replies. `wallet_api/reply_models.py` documents it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import orjson
from sqlalchemy import RowMapping

from common.moments import timestamp
from common.money import to_major
from common.problems import MEDIA_TYPE, Problem
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.wallet import Wallet

JSON: Final = "application/json"
DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class Reply:
    """An encoded reply: the same bytes are sent and stored under the idempotency key.

    Attributes:
        status: the HTTP status.
        body: JSON.
        headers: besides `Content-Type: application/json`, unless they have another one.
        outcome: `done`, `replayed` or the code of the problem.
        is_decided: whether a repeated request with the same idempotency key gets this reply again.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    outcome: str = DONE
    is_decided: bool = True


def etag(version: int) -> str:
    """Return the strong entity tag of a wallet at that version (RFC 9110, section 8.8.3)."""
    return f'"{version}"'


def wallet_json(row: RowMapping) -> dict[str, Any]:
    """Return the JSON of a row of `wallets`."""
    return {
        "id": str(row["id"]),
        "user_id": row["user_id"],
        "currency": row["currency"],
        "balance": to_major(row["balance_minor"], row["currency"]),
        "held": to_major(row["held_minor"], row["currency"]),
        "available": to_major(row["balance_minor"] - row["held_minor"] + row["overdraft_limit_minor"], row["currency"]),
        "version": row["version"],
        "status": row["status"],
        "blocks": row["blocks"] or ("all" if row["status"] == "frozen" else None),
        "external_id": row["external_id"],
        "metadata": row["metadata"],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
    }


def entry_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the JSON of a wallet's row of `wallet_transactions`."""
    counterparty, held_after = row["counterparty_wallet_id"], row["held_after_minor"]
    reverses = row["reverses_transaction_id"]
    return {
        "transaction_id": str(row["transaction_id"]),
        "type": row["type"],
        "wallet_id": str(row["wallet_id"]),
        "counterparty_wallet_id": counterparty and str(counterparty),
        "amount": to_major(row["amount_minor"], row["currency"]),
        "currency": row["currency"],
        "balance_after": to_major(row["balance_after_minor"], row["currency"]),
        "held": to_major(row["held_minor"], row["currency"]),
        "held_after": None if held_after is None else to_major(held_after, row["currency"]),
        "hold_id": row["hold_id"] and str(row["hold_id"]),
        "reverses": reverses and str(reverses),
        "version": row["wallet_version"],
        "reference": row["reference"],
        "external_id": row["external_id"],
        "metadata": row["metadata"],
        "created_at": timestamp(row["created_at"]),
    }


def wallet_reply(wallet: Wallet, external_id: str | None, metadata: Mapping[str, Any], created_at: datetime) -> Reply:
    """Return the reply to the creation of a wallet."""
    body = {
        "id": str(wallet.id),
        "user_id": wallet.user_id,
        "currency": wallet.currency,
        **_money(wallet),
        "version": wallet.version,
        "status": wallet.status,
        "blocks": wallet.blocks,
        "external_id": external_id,
        "metadata": metadata,
        "created_at": timestamp(created_at),
        "updated_at": timestamp(created_at),
    }
    return Reply(201, orjson.dumps(body), {"Location": f"/wallets/{wallet.id}", "ETag": etag(wallet.version)})


def transaction_reply(transaction: LedgerTransaction, created_at: datetime) -> Reply:
    """Return the reply to a transaction: with the balance of the acting wallet, never of another one."""
    wallet, command = transaction.wallet, transaction.command
    counterparty_id = transaction.counterparty_id(transaction.entries[0])
    body = {
        "transaction_id": str(transaction.id),
        "type": transaction.type,
        "wallet_id": str(wallet.id),
        "counterparty_wallet_id": counterparty_id and str(counterparty_id),
        "amount": to_major(transaction.amount_minor, wallet.currency) if transaction.amount_minor else None,
        "currency": wallet.currency,
        **_money(wallet),
        "version": wallet.version,
        "reference": command.reference,
        "external_id": command.external_id,
        "metadata": command.metadata,
        "created_at": timestamp(created_at),
        **transaction.details,
    }
    headers = {"ETag": etag(wallet.version)}
    if transaction.hold and command.status == HTTPStatus.CREATED:
        headers["Location"] = f"/holds/{transaction.hold.id}"
    elif transaction.reverses_id:
        headers["Location"] = f"/transactions/{transaction.id}"
    return Reply(command.status, orjson.dumps(body), headers)


def _money(wallet: Wallet) -> dict[str, str]:
    balance = to_major(wallet.balance_minor, wallet.currency)
    # Making the text again for most wallets, where both are the same, would take a hundredth of a transfer.
    is_same = wallet.available_minor == wallet.balance_minor
    available = balance if is_same else to_major(wallet.available_minor, wallet.currency)
    return {"balance": balance, "held": to_major(wallet.held_minor, wallet.currency), "available": available}


def list_json(items: list[dict[str, Any]], cursor: str | None) -> bytes:
    """Return the JSON of a page of a list."""
    return orjson.dumps({"items": items, "next_cursor": cursor})


def problem_reply(problem: Problem, path: str) -> Reply:
    """Return the reply to the request for `path` that the problem refuses."""
    headers = {"Content-Type": MEDIA_TYPE, **problem.headers()}
    return Reply(problem.status, problem.body(path), headers, problem.code, problem.decided)
