"""What a record of the topic means: one history row for each wallet that the event touched. Pure.

The record is somebody else's bytes. Whatever they are, the answer is rows that PostgreSQL takes, or PoisonError.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import orjson
from pydantic import ValidationError

from common.events import TransferDone, WalletChange, WalletCreated, WalletFunded, decode
from common.money import AmountError, UnknownCurrencyError, balance_to_minor, to_minor
from common.text import check_text, check_user_id

EventType = Literal["WALLET_CREATED", "WALLET_FUNDED", "TRANSFER_SENT", "TRANSFER_RECEIVED"]
Direction = Literal["in", "out"]

VERSION_MAX: Final = 2**63 - 1
DETAIL_LENGTH_MAX: Final = 1000

# What PostgreSQL refuses and pydantic lets pass has one of these in it: NaN, Infinity, an escaped NUL. Reading each
# value twice to find out took a twelfth of the consumer's time.
_SUSPECT: Final = re.compile(rb"NaN|Infinity|\\u0000")

_SIDES: Final[dict[str, Sequence[tuple[EventType, Direction | None]]]] = {
    "WALLET_CREATED": [("WALLET_CREATED", None)],
    "WALLET_FUNDED": [("WALLET_FUNDED", "in")],
    "TRANSFER_DONE": [("TRANSFER_SENT", "out"), ("TRANSFER_RECEIVED", "in")],
}


class PoisonError(Exception):
    """The record can't be applied, now or later.

    Args:
        reason: a stable code: `tombstone`, `not-json`, `unknown-type`, `wrong-version`, `wrong-shape`,
            `nul-character`, `bad-amount`, `unknown-currency` or `out-of-range`.
        detail: a sentence for a person, which PostgreSQL can store.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = storable(detail)


class HistoryRow(NamedTuple):
    """One event as one wallet saw it; amounts are minor units, `event_data` the event as it came.

    A tuple: a frozen dataclass of thirteen fields takes five times as long to make, twice a transfer.
    """

    wallet_id: UUID
    wallet_version: int
    event_id: UUID
    event_type: EventType
    user_id: str
    transaction_id: UUID | None
    direction: Direction | None
    amount_minor: int | None
    currency: str
    balance_after_minor: int
    counterparty_wallet_id: UUID | None
    event_data: str
    created_at: datetime


def rows_of(value: bytes | None) -> tuple[HistoryRow, ...]:
    """Turn a record's value into its rows: two for a transfer, the sender's first, one for anything else.

    Raises:
        PoisonError: it can't be applied; no other exception, whatever the bytes are.
    """
    if value is None:
        raise PoisonError("tombstone", "the record has no value")
    event = _decode(value)
    if _SUSPECT.search(value):
        _refuse_nul(_parse(value))
    created_at = _in_utc(event.created_at)
    transaction_id, amount_minor = _moved(event)
    ids = [change.wallet_id for change in event.wallets]
    if len(set(ids)) < len(ids):
        raise PoisonError("wrong-shape", f"wallet {ids[0]} is on both sides")
    text = value.decode()
    return tuple(
        HistoryRow(
            change.wallet_id,
            _version(change),
            event.event_id,
            event_type,
            _user_id(change),
            transaction_id,
            _direction(change, direction),
            amount_minor,
            event.currency,
            _balance_minor(change, event.currency),
            ids[1 - position] if len(ids) > 1 else None,
            text,
            created_at,
        )
        for position, (change, (event_type, direction)) in enumerate(
            zip(event.wallets, _SIDES[event.event_type], strict=True)
        )
    )


def storable(text: str) -> str:
    """Return the text bounded, and without what PostgreSQL refuses: NUL and lone surrogates."""
    return text[:DETAIL_LENGTH_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _parse(value: bytes) -> Any:
    """Read strict JSON (RFC 8259): pydantic lets `NaN` and `Infinity` pass, which PostgreSQL's `json` refuses."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise PoisonError("not-json", str(error)) from None


def _decode(value: bytes) -> WalletCreated | WalletFunded | TransferDone:
    try:
        return decode(value)
    except ValidationError as error:
        raise _poison_of(error) from None


def _poison_of(error: ValidationError) -> PoisonError:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    kinds = {item["type"] for item in errors}
    reason = "wrong-shape"
    if "json_invalid" in kinds:
        reason = "not-json"
    elif kinds & {"union_tag_invalid", "union_tag_not_found"}:
        reason = "unknown-type"
    elif any(item["loc"][-1:] == ("schema_version",) for item in errors):
        reason = "wrong-version"
    return PoisonError(
        reason, "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in errors)
    )


def _refuse_nul(item: Any) -> None:
    """Refuse NUL in any text: `json` stores its escape, but nothing can ever read it out as text."""
    try:
        if isinstance(item, str):
            check_text(item)
    except ValueError as error:
        raise PoisonError("nul-character", f"text {error}") from None
    if isinstance(item, dict):
        for key, member in item.items():
            _refuse_nul(key)
            _refuse_nul(member)
    elif isinstance(item, list):
        for member in item:
            _refuse_nul(member)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PoisonError("out-of-range", f"created_at: {moment.isoformat()} is no time in UTC") from None


def _moved(event: WalletCreated | WalletFunded | TransferDone) -> tuple[UUID | None, int | None]:
    if isinstance(event, WalletCreated):
        return None, None
    return event.transaction_id, _minor(to_minor, "amount", event.amount, event.currency)


def _balance_minor(change: WalletChange, currency: str) -> int:
    return _minor(balance_to_minor, "balance_after", change.balance_after, currency)


def _minor(convert: Any, field: str, amount: str, currency: str) -> int:
    try:
        return int(convert(amount, currency))
    except AmountError as error:
        raise PoisonError("bad-amount", f"{field}: {error}") from None
    except UnknownCurrencyError as error:
        raise PoisonError("unknown-currency", f"currency: {error}") from None


def _version(change: WalletChange) -> int:
    if change.version > VERSION_MAX:
        raise PoisonError("out-of-range", f"version: must be at most {VERSION_MAX}")
    return change.version


def _user_id(change: WalletChange) -> str:
    try:
        return check_user_id(change.user_id)
    except ValueError as error:
        raise PoisonError("wrong-shape", f"user_id: {error}") from None


def _direction(change: WalletChange, expected: Direction | None) -> Direction | None:
    if change.direction != expected:
        raise PoisonError("wrong-shape", f"direction: must be {expected}, is {change.direction}")
    return expected
