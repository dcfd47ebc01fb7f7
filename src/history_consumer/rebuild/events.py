"""Events of the wallet database as the records that they became, or would have become. Pure."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Poison, Record, stored_record
from history_consumer.rebuild import ledger

Key = tuple[UUID, int]
"""A wallet and its version."""


def record_of_payload(payload: str) -> Record:
    """Return the record of an event. It has no place in the topic, and so no topic id."""
    return stored_record(payload.encode(), Position(0, 0, ""))


def keys_of(record: Record) -> list[Key]:
    """Return the wallets and versions of the event, or none of poison."""
    return [(row.wallet_id, row.wallet_version) for row in record.rows]


def key_of(row: Row[Any]) -> Key:
    """Return the key of a row that has `wallet_id` and `wallet_version`."""
    return row.wallet_id, row.wallet_version


def as_before(record: Record, old: Mapping[Key, str]) -> Record:
    """Return the old history's event, with its bytes and its id, if it agrees with the ledger; else the new record."""
    before = {old[key] for key in keys_of(record) if key in old}
    for payload in before:
        found = record_of_payload(payload)
        if isinstance(found.content, Poison) or isinstance(record.content, Poison):
            continue
        if ledger.same_facts(found.content, record.content):
            return found
    return record
