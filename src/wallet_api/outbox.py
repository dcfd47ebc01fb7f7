"""Outbox rows, made from what was decided."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from common.events import TransferDone, WalletChange, WalletCreated, WalletFunded
from common.identifiers import event_id_at, lane_of
from common.money import to_major
from wallet_api.commands import Command, CreateWallet
from wallet_api.wallet import Movement, Wallet

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
            wallets=[_change(wallet, None)],
        )
        rows.append(_row(event, wallet.id, command))
    return rows


def movement_rows(movements: Sequence[Movement], created_at: datetime) -> list[NewOutboxRow]:
    """Return the `WALLET_FUNDED` and `TRANSFER_DONE` rows."""
    return [
        _row(_movement_event(movement, created_at, position), movement.wallet.id, movement.command)
        for position, movement in enumerate(movements)
    ]


def _movement_event(movement: Movement, created_at: datetime, position: int) -> WalletFunded | TransferDone:
    common: dict[str, Any] = {
        "event_id": event_id_at(created_at, position),
        "created_at": created_at,
        "currency": movement.wallet.currency,
        "metadata": dict(movement.command.metadata),
        "transaction_id": movement.transaction_id,
        "amount": to_major(movement.amount_minor, movement.wallet.currency),
        "reference": movement.command.reference,
    }
    if movement.receiver is None:
        return WalletFunded(**common, wallets=[_change(movement.wallet, "in")])
    return TransferDone(**common, wallets=[_change(movement.wallet, "out"), _change(movement.receiver, "in")])


def _change(wallet: Wallet, direction: Literal["in", "out"] | None) -> WalletChange:
    return WalletChange(
        wallet_id=wallet.id,
        user_id=wallet.user_id,
        version=wallet.version,
        balance_after=to_major(wallet.balance_minor, wallet.currency),
        direction=direction,
    )


def _row(event: WalletCreated | WalletFunded | TransferDone, aggregate_id: UUID, command: Command) -> NewOutboxRow:
    return {
        "event_id": event.event_id,
        "aggregate_id": aggregate_id,
        "lane": lane_of(aggregate_id),
        "event_type": event.event_type,
        "payload": event.encode(),
        "headers": {"traceparent": command.traceparent} if command.traceparent else None,
    }
