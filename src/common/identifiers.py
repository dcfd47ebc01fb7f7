"""Identifiers: UUIDv7 for what is made, lanes for what is published in order."""

import re
import secrets
import zlib
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils import compat

LANES: Final = 64
"""How many lanes the outbox has: the most relays that can publish side by side."""

POSITIONS_MAX: Final = 2**14

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> UUID:
    """Return a UUIDv7 of now by this machine's clock (RFC 9562, section 5.7)."""
    return compat.uuid7()


def parse_uuid(value: object) -> UUID:
    """Return the UUID that a client wrote (RFC 9562, section 4: hexadecimal digits 8-4-4-4-12, of either case).

    Python's own UUID also takes braces, `urn:uuid:`, underscores, digits of other scripts and hyphens anywhere.

    Raises:
        ValueError: it isn't one.
    """
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise ValueError("must be a UUID such as 0198c2a5-0000-7000-8000-000000000001")
    return UUID(value)


def event_id_at(moment: datetime, position: int) -> UUID:
    """Return a UUIDv7 that sorts by `moment` to the microsecond, then by `position` (below 16384).

    The history of a user is listed in the order of event ids. `moment` comes from the database, taken when the version
    was read that the movement goes by, so that two API processes can't give one wallet's events ids in the wrong order,
    whatever their own clocks say. RFC 9562, section 6.2, methods 3 (sub-millisecond precision) and 1 (counter).
    """
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    if not 0 <= position < POSITIONS_MAX:
        raise ValueError(f"position must be 0 to {POSITIONS_MAX - 1}")
    high = milliseconds << 16 | 0x7000 | rest << 2
    low = 0b10 << 62 | position << 48 | secrets.randbits(48)
    return UUID(int=high << 64 | low)


def lane_of(aggregate_id: UUID) -> int:
    """Return the outbox lane, 0 to 63, in which everything of this aggregate is published in order."""
    return zlib.crc32(aggregate_id.bytes) % LANES
