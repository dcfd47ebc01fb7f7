"""The JSON of replies, and the models that document it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, Field, create_model
from sqlalchemy import RowMapping

from common.events import TRANSACTION_EVENTS, Blocks, HoldState, MovementEvent, Sweep, details_of
from common.moments import timestamp
from common.money import to_major
from common.problems import MEDIA_TYPE, Problem
from wallet_api.hold import Hold, hold_json
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.wallet import Wallet

JSON = "application/json"


DONE: Final = "done"
EXPANDED_HOLDS_MAX: Final = 100
"""The most holds that a wallet is read with."""


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
    balance: str = Field(examples=["50.00"], description="What is booked.")
    held: str = Field(examples=["15.00"], description="What open holds reserve.")
    available: str = Field(
        examples=["35.00"],
        description="What may be spent or reserved: the balance less `held`, and the overdraft limit.",
    )
    version: int = Field(examples=[2])
    status: Literal["active", "frozen", "closed"]
    blocks: Blocks | None = Field(description="What a frozen wallet refuses: money in, money out, or all. Else null.")
    external_id: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    holds: "HoldList | None" = Field(
        None,
        description=f"Only with `expand=holds`: the {EXPANDED_HOLDS_MAX} newest of the holds that make up `held`."
        " `next_cursor` goes on with `GET /wallets/{wallet_id}/holds?status=open`.",
    )


class _TransactionOut(BaseModel):
    transaction_id: UUID
    type: str = Field(examples=["TRANSFER"], json_schema_extra={"enum": list(TRANSACTION_EVENTS)})
    wallet_id: UUID
    counterparty_wallet_id: UUID | None
    currency: str = Field(examples=["EUR"])
    version: int = Field(examples=[3])
    reference: str | None
    external_id: str | None = Field(examples=["order-4711"])
    metadata: dict[str, Any]
    created_at: datetime


class _DoneOut(_TransactionOut):
    transaction_id: UUID | None = Field(description="null in a preview.")  # type: ignore[assignment]
    preview: Literal[True] | None = Field(None, description="Only in the reply to a preview: nothing was done.")
    balance: str = Field(examples=["20.00"])
    held: str = Field(examples=["0.00"])
    available: str = Field(examples=["20.00"])


class MoneyOut(_DoneOut):
    """A transaction in which money moved, was reserved or was released, and the acting wallet after it."""

    amount: str = Field(examples=["30.00"])


class ChangeOut(_DoneOut):
    """A transaction in which no money moved, and the acting wallet after it."""

    amount: None = None


class HoldInReply(HoldState):
    """A hold as it is right after the transaction. `to_wallet_id` is the receiver; null is the world."""

    id: UUID | None = Field(description="null in a preview of a new hold.")  # type: ignore[assignment]


class SweepInReply(Sweep):
    """The transfer that emptied a wallet before it was closed."""

    transaction_id: UUID | None = Field(description="null in a preview.")  # type: ignore[assignment]


_IN_REPLIES: Final[Mapping[Any, Any]] = {HoldState: HoldInReply, Sweep | None: SweepInReply | None}
"""The types of details whose ids a preview leaves out."""


class HoldOut(HoldState):
    """A hold, with the transactions that changed it, the oldest first. Once it has expired its status says so."""

    currency: str = Field(examples=["EUR"])
    reference: str | None
    external_id: str | None = Field(examples=["order-4711"])
    metadata: dict[str, Any]
    transaction_ids: list[UUID]
    created_at: datetime
    updated_at: datetime


class EntryOut(_TransactionOut):
    """One entry of a wallet's ledger.

    `amount` is negative where money left the wallet, and zero where none moved. `balance_after` is negative where the
    wallet was overdrawn. `held` is the change of what open holds reserve. `held_after` is null in entries of releases
    that had no holds. `external_id` is null in the entries of the wallets that did not act.
    """

    amount: str = Field(examples=["30.00"])
    balance_after: str = Field(examples=["20.00"])
    held: str = Field(examples=["0.00"])
    held_after: str | None = Field(examples=["0.00"])
    hold_id: UUID | None
    reverses: UUID | None = Field(description="The transaction that this one reverses.")


class WalletList(BaseModel):
    """A page of wallets."""

    items: list[WalletOut]
    next_cursor: str | None


class HoldList(BaseModel):
    """A page of a wallet's holds."""

    items: list[HoldOut]
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
        name: (_IN_REPLIES.get(field.annotation, field.annotation), field) for name, field in details_of(event).items()
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


def hold_out_json(row: RowMapping) -> dict[str, Any]:
    """Return the JSON of a row of `read_queries`: a hold, as of the time at which it was read."""
    hold = Hold(*(row[field.name] for field in fields(Hold)))
    return {
        **hold_json(hold, row["read_at"]),
        "currency": hold.currency,
        "reference": row["reference"],
        "external_id": row["external_id"],
        "metadata": row["metadata"],
        "transaction_ids": [str(id_) for id_ in row["transaction_ids"]],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
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


def problem_reply(problem: Problem, path: str) -> Reply:
    """Return the reply to the request for `path` that the problem refuses."""
    headers = {"Content-Type": MEDIA_TYPE, **problem.headers()}
    return Reply(problem.status, problem.body(path), headers, problem.code, problem.decided)
