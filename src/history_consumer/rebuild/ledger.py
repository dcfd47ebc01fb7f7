"""Events made from the ledger, where neither the topic nor the outbox has them any more. Pure."""

import hashlib
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Row

from common.events.kinds import TransactionEvent
from common.events.models import WalletCreated, transaction_event
from common.events.parts import WalletChange, wallet_change
from common.identifiers import POSITIONS_MAX, event_id_at
from common.money import to_major
from history_consumer.projection import HistoryRow

_RANDOM_BITS: Final = 48


def created(row: Row[Any]) -> WalletCreated:
    """Return the event of the wallet's creation."""
    return WalletCreated(
        event_id=_event_id(row.created_at, 1, row.wallet_id),
        created_at=row.created_at,
        currency=row.currency,
        metadata=orjson.loads(row.metadata),
        external_id=row.external_id,
        wallets=[WalletChange(**wallet_change(row.wallet_id, row.user_id, 1, row.currency, 0))],
    )


def moved(row: Row[Any]) -> TransactionEvent:
    """Return the event of the movement."""
    return transaction_event(
        row.type,
        event_id=_event_id(row.created_at, row.version, row.transaction_id),
        created_at=row.created_at,
        currency=row.currency,
        metadata=orjson.loads(row.metadata or "{}"),
        transaction_id=row.transaction_id,
        amount=to_major(row.amount_minor, row.currency),
        reference=row.reference,
        external_id=row.external_id,
        wallets=[_entry_change(row, *entry) for entry in orjson.loads(row.wallets)],
        **orjson.loads(row.details or "{}"),
    )


def same_facts(one: tuple[HistoryRow, ...], other: tuple[HistoryRow, ...]) -> bool:
    """Return whether both have the same facts. The event's id and bytes do not count: the ledger has neither."""
    return [_facts(row) for row in one] == [_facts(row) for row in other]


def _facts(row: HistoryRow) -> HistoryRow:
    return row._replace(event_id=row.wallet_id, event_data="")


def _entry_change(
    row: Row[Any],
    wallet_id: str,
    user_id: str,
    version: int,
    balance_minor: int,
    held_minor: int | None,
    moved_minor: int,
) -> dict[str, Any]:
    return wallet_change(
        UUID(wallet_id),
        user_id,
        version,
        row.currency,
        balance_minor,
        held_minor,
        moved_minor=moved_minor,
        amount_minor=row.amount_minor,
    )


def _event_id(created_at: datetime, version: int, what: UUID) -> UUID:
    """Return an id that sorts by time as the lost one did, and that is the same in each rebuild."""
    made = event_id_at(created_at, version % POSITIONS_MAX)
    low = int.from_bytes(hashlib.sha256(what.bytes).digest()[: _RANDOM_BITS // 8])
    return UUID(int=made.int >> _RANDOM_BITS << _RANDOM_BITS | low)
