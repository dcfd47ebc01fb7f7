"""The JSON of replies, and the models that document it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, Field, create_model
from sqlalchemy import RowMapping

from common.events import TRANSACTION_EVENTS, Blocks, MovementEvent
from common.moments import timestamp
from common.money import to_major
from common.problems import MEDIA_TYPE, Problem
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.wallet import Wallet

JSON = "application/json"


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


class WalletOut(BaseModel):
    """A wallet."""

    id: UUID
    user_id: str = Field(examples=["ada"])
    currency: str = Field(examples=["EUR"])
    balance: str = Field(examples=["50.00"])
    version: int = Field(examples=[2])
    status: Literal["active", "frozen", "closed"]
    blocks: Blocks | None = Field(description="What a frozen wallet refuses: money in, money out, or all. Else null.")
    external_id: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class _TransactionOut(BaseModel):
    transaction_id: UUID
    type: str = Field(examples=["TRANSFER"], json_schema_extra={"enum": list(TRANSACTION_EVENTS)})
    wallet_id: UUID
    counterparty_wallet_id: UUID | None
    currency: str = Field(examples=["EUR"])
    version: int = Field(examples=[3])
    reference: str | None
    metadata: dict[str, Any]
    created_at: datetime


class MoneyOut(_TransactionOut):
    """A transaction in which money moved, and the acting wallet after it."""

    amount: str = Field(examples=["30.00"])
    balance: str = Field(examples=["20.00"])


class ChangeOut(_TransactionOut):
    """A transaction in which no money moved, and the acting wallet after it."""

    amount: None = None
    balance: str = Field(examples=["20.00"])


class EntryOut(_TransactionOut):
    """One entry of a wallet's ledger.

    `amount` is negative where money left the wallet, and zero where none moved.
    """

    amount: str = Field(examples=["30.00"])
    balance_after: str = Field(examples=["20.00"])


_COMMON_FIELDS: Final = frozenset(MovementEvent.model_fields)


class WalletList(BaseModel):
    """A page of wallets."""

    items: list[WalletOut]
    next_cursor: str | None


class EntryList(BaseModel):
    """A page of a wallet's ledger."""

    items: list[EntryOut]
    next_cursor: str | None


def reply_model(transaction_type: str) -> type[BaseModel]:
    """Return the model of the reply to an operation: its transaction, and what the event says besides."""
    event = TRANSACTION_EVENTS[transaction_type]
    base: type[BaseModel] = MoneyOut if issubclass(event, MovementEvent) else ChangeOut
    details: dict[str, Any] = {
        name: (field.annotation, field) for name, field in event.model_fields.items() if name not in _COMMON_FIELDS
    }
    if not details:
        return base
    model: type[BaseModel] = create_model(f"{event.__name__}Out", __base__=base, __doc__=base.__doc__, **details)
    return model


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
    counterparty = row["counterparty_wallet_id"]
    return {
        "transaction_id": str(row["transaction_id"]),
        "type": row["type"],
        "wallet_id": str(row["wallet_id"]),
        "counterparty_wallet_id": counterparty and str(counterparty),
        "amount": to_major(row["amount_minor"], row["currency"]),
        "currency": row["currency"],
        "balance_after": to_major(row["balance_after_minor"], row["currency"]),
        "version": row["wallet_version"],
        "reference": row["reference"],
        "metadata": row["metadata"],
        "created_at": timestamp(row["created_at"]),
    }


def wallet_reply(wallet: Wallet, external_id: str | None, metadata: Mapping[str, Any], created_at: datetime) -> Reply:
    """Return the reply to the creation of a wallet."""
    body = {
        "id": str(wallet.id),
        "user_id": wallet.user_id,
        "currency": wallet.currency,
        "balance": to_major(wallet.balance_minor, wallet.currency),
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
        "balance": to_major(wallet.balance_minor, wallet.currency),
        "version": wallet.version,
        "reference": command.reference,
        "metadata": command.metadata,
        "created_at": timestamp(created_at),
        **transaction.details,
    }
    return Reply(200, orjson.dumps(body), {"ETag": etag(wallet.version)})


def problem_reply(problem: Problem, path: str) -> Reply:
    """Return the reply to the request for `path` that the problem refuses."""
    headers = {"Content-Type": MEDIA_TYPE, **problem.headers()}
    return Reply(problem.status, problem.body(path), headers, problem.code, problem.decided)
