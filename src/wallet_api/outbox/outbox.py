"""Outbox rows, made from what was decided."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from common.events.encoding import encode
from common.events.kinds import MovementEvent
from common.events.models import TRANSACTION_EVENTS, AnyEvent, WalletCreated, event_type_of
from common.events.parts import wallet_change
from common.identifiers import event_id_at, lane_of
from common.money import to_major
from wallet_api.commands import Command, CreateWallet
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.wallet import Wallet

NewOutboxRow = dict[str, Any]


def creation_rows(wallets: Sequence[tuple[Wallet, CreateWallet]], created_at: datetime) -> list[NewOutboxRow]:
    """Return the `WALLET_CREATED` rows."""
    return [
        _row(
            WalletCreated,
            event_id_at(created_at, position),
            wallet.id,
            command,
            created_at=created_at,
            currency=wallet.currency,
            external_id=command.external_id,
            wallets=[wallet_change(wallet.id, wallet.user_id, 1, wallet.currency, 0)],
        )
        for position, (wallet, command) in enumerate(wallets)
    ]


def transaction_rows(transactions: Sequence[LedgerTransaction], created_at: datetime) -> list[NewOutboxRow]:
    """Return the row of each transaction's event."""
    return [
        _transaction_row(transaction, created_at, event_id_at(created_at, position))
        for position, transaction in enumerate(transactions)
    ]


def _transaction_row(transaction: LedgerTransaction, created_at: datetime, event_id: UUID) -> NewOutboxRow:
    model, currency = TRANSACTION_EVENTS[transaction.type], transaction.wallet.currency
    changes = [
        _change(entry.wallet, entry.amount_minor, transaction.amount_minor)
        for entry in transaction.entries
        if entry.wallet
    ]
    optional = {"amount": to_major(transaction.amount_minor, currency)} if issubclass(model, MovementEvent) else {}
    if transaction.command.external_id is not None:
        optional["external_id"] = transaction.command.external_id
    return _row(
        model,
        event_id,
        transaction.wallet.id,
        transaction.command,
        created_at=created_at,
        currency=currency,
        transaction_id=transaction.id,
        reference=transaction.command.reference,
        wallets=changes,
        **optional,
        **transaction.details,
    )


def _change(wallet: Wallet, moved_minor: int, amount_minor: int) -> dict[str, Any]:
    return wallet_change(
        wallet.id,
        wallet.user_id,
        wallet.version,
        wallet.currency,
        wallet.balance_minor,
        wallet.held_minor,
        moved_minor=moved_minor,
        amount_minor=amount_minor,
    )


def _row(model: type[AnyEvent], event_id: UUID, aggregate_id: UUID, command: Command, **fields: Any) -> NewOutboxRow:
    return {
        "event_id": event_id,
        "aggregate_id": aggregate_id,
        "lane": lane_of(aggregate_id),
        "event_type": event_type_of(model),
        "payload": encode(model, event_id=event_id, metadata=command.metadata, **fields),
        "headers": {"traceparent": command.traceparent} if command.traceparent else None,
    }
