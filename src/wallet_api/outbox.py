"""Outbox rows, made from what was decided."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from common.events import AnyEvent, WalletChange, WalletCreated, transaction_event, wallet_change
from common.identifiers import event_id_at, lane_of
from common.money import to_major
from wallet_api.commands import Command, CreateWallet
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.wallet import Wallet

NewOutboxRow = dict[str, Any]


def creation_rows(wallets: Sequence[tuple[Wallet, CreateWallet]], created_at: datetime) -> list[NewOutboxRow]:
    """Return the `WALLET_CREATED` rows."""
    rows = []
    for position, (wallet, command) in enumerate(wallets):
        event = WalletCreated(
            event_id=event_id_at(created_at, position),
            created_at=created_at,
            currency=wallet.currency,
            metadata=dict(command.metadata),
            external_id=command.external_id,
            wallets=[wallet_change(wallet.id, wallet.user_id, 1, wallet.currency, 0)],
        )
        rows.append(_row(event, wallet.id, command))
    return rows


def transaction_rows(transactions: Sequence[LedgerTransaction], created_at: datetime) -> list[NewOutboxRow]:
    """Return the row of each transaction's event."""
    return [
        _row(_event(transaction, created_at, position), transaction.wallet.id, transaction.command)
        for position, transaction in enumerate(transactions)
    ]


def _event(transaction: LedgerTransaction, created_at: datetime, position: int) -> AnyEvent:
    command, currency = transaction.command, transaction.wallet.currency
    return transaction_event(
        transaction.type,
        event_id=event_id_at(created_at, position),
        created_at=created_at,
        currency=currency,
        metadata=dict(command.metadata),
        transaction_id=transaction.id,
        amount=to_major(transaction.amount_minor, currency),
        reference=command.reference,
        wallets=[
            _change(entry.wallet, entry.amount_minor, transaction.amount_minor)
            for entry in transaction.entries
            if entry.wallet
        ],
        **transaction.details,
    )


def _change(wallet: Wallet, moved_minor: int, amount_minor: int) -> WalletChange:
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


def _row(event: AnyEvent, aggregate_id: UUID, command: Command) -> NewOutboxRow:
    return {
        "event_id": event.event_id,
        "aggregate_id": aggregate_id,
        "lane": lane_of(aggregate_id),
        "event_type": event.event_type,
        "payload": event.encode(),
        "headers": {"traceparent": command.traceparent} if command.traceparent else None,
    }
