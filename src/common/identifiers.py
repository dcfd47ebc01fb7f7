"""Identifiers: UUIDv7 for new objects, and the lane of each aggregate."""

import re
import secrets
import zlib
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils import compat

LANES: Final = 64
"""How many lanes the outbox has, and so the most relays that can publish at the same time."""

POSITIONS_MAX: Final = 2**14

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> UUID:
    """Return a new UUIDv7 by this machine's clock (RFC 9562, section 5.7)."""
    return compat.uuid7()


def parse_uuid(value: object) -> UUID:
    """Return the UUID in its text form (RFC 9562, section 4: hexadecimal digits 8-4-4-4-12, of either case).

    Python's own UUID also accepts braces, `urn:uuid:`, underscores, digits of other scripts and hyphens anywhere.

    Raises:
        ValueError: the value isn't a UUID in that form.
    """
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise ValueError("must be a UUID such as 0198c2a5-0000-7000-8000-000000000001")
    # The pattern has checked the text: reading it as a number is faster than checking it again.
    return UUID(int=int(value.replace("-", ""), 16))


def event_id_at(moment: datetime, position: int) -> UUID:
    """Return a UUIDv7 that sorts by `moment` to the microsecond, then by `position` (below 16384).

    A user's history is in the order of event ids. `moment` is the database's time when the transaction read the
    wallet's version. So two API processes with different clocks still give a wallet's events ids in the right order.

    Source: RFC 9562, section 6.2, methods 3 (sub-millisecond precision) and 1 (counter).
    """
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    if not 0 <= position < POSITIONS_MAX:
        raise ValueError(f"position must be 0 to {POSITIONS_MAX - 1}")
    high = milliseconds << 16 | 0x7000 | rest << 2
    low = 0b10 << 62 | position << 48 | secrets.randbits(48)
    return UUID(int=high << 64 | low)


def lane_of(aggregate_id: UUID) -> int:
    """Return the outbox lane, 0 to 63, in which all events of this aggregate are published in order."""
    return zlib.crc32(aggregate_id.bytes) % LANES
