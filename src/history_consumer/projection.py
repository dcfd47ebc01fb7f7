"""What a record of the topic means: one history row for each wallet that the event touched. Pure.

Any client may write to the topic. Any bytes give rows that PostgreSQL takes, or PoisonError.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import orjson
from pydantic import AfterValidator, ValidationError, WithJsonSchema

from common.events.encoding import decode
from common.events.kinds import MovementEvent
from common.events.models import AnyEvent, MovementReversed, WalletCreated
from common.events.parts import WalletChange
from common.money import AmountError, UnknownCurrencyError, balance_to_minor, to_minor
from common.text import check_text, check_user_id

Direction = Literal["in", "out"]

VERSION_MAX: Final = 2**63 - 1
DETAIL_LENGTH_MAX: Final = 1000

SIDES: Final[Mapping[str, Sequence[tuple[str, Direction | None]]]] = {
    "WALLET_CREATED": [("WALLET_CREATED", None)],
    "WALLET_FUNDED": [("WALLET_FUNDED", "in")],
    "WALLET_WITHDRAWN": [("WALLET_WITHDRAWN", "out")],
    "TRANSFER_DONE": [("TRANSFER_SENT", "out"), ("TRANSFER_RECEIVED", "in")],
    "SPLIT_DONE": [("SPLIT_SENT", "out"), ("SPLIT_RECEIVED", "in")],
    "HOLD_CREATED": [("HOLD_CREATED", None)],
    # Without the second wallet the money left the system.
    "HOLD_CAPTURED": [("HOLD_CAPTURED", "out"), ("HOLD_RECEIVED", "in")],
    "HOLD_VOIDED": [("HOLD_VOIDED", None)],
    "HOLD_EXPIRED": [("HOLD_EXPIRED", None)],
    # The wallet that gets back is the first where several wallets, or the world, give back.
    "MOVEMENT_REVERSED": [("REVERSAL_SENT", "out"), ("REVERSAL_RECEIVED", "in")],
    "WALLET_FROZEN": [("WALLET_FROZEN", None)],
    "WALLET_UNFROZEN": [("WALLET_UNFROZEN", None)],
    "WALLET_CLOSED": [("WALLET_CLOSED", None)],
    "WALLET_REOPENED": [("WALLET_REOPENED", None)],
    "WALLET_LIMITS_SET": [("WALLET_LIMITS_SET", None)],
}
"""For each event, its type in the history of each of its wallets, and the direction in which the money moved there.

Where an event has more wallets than sides, the last side is theirs.
"""

EVENT_TYPES: Final = tuple(event_type for sides in SIDES.values() for event_type, _ in sides)
"""The types of the history's rows."""


def _check_event_type(value: str) -> str:
    if value not in EVENT_TYPES:
        raise ValueError(f"must be one of {', '.join(EVENT_TYPES)}")
    return value


EventType = Annotated[
    str, AfterValidator(_check_event_type), WithJsonSchema({"type": "string", "enum": list(EVENT_TYPES)})
]
"""One of `EVENT_TYPES`."""


class PoisonError(Exception):
    """This consumer can't apply the record. After an upgrade, a retry of the dead letter may apply it.

    Args:
        reason: a stable code: `tombstone`, `not-json`, `unknown-type`, `wrong-version`, `wrong-shape`,
            `nul-character`, `bad-amount`, `unknown-currency` or `out-of-range`.
        detail: a sentence for operators, which PostgreSQL can store.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = storable(detail)


class HistoryRow(NamedTuple):
    """One event from the view of one wallet. Amounts are minor units; `event_data` is the event as it came.

    A tuple, because making a frozen dataclass of thirteen fields takes five times as long.
    """

    wallet_id: UUID
    wallet_version: int
    event_id: UUID
    event_type: str
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
    """Turn a record's value into its rows: one for each wallet of the event, in their order.

    Raises:
        PoisonError: the record can't be applied. No bytes raise another exception.
    """
    if value is None:
        raise PoisonError("tombstone", "the record has no value")
    parsed = _parse(value)
    event = _decode(parsed)
    if b"\\u0000" in value:
        _refuse_nul(parsed)
    created_at = _in_utc(event.created_at)
    acting, *others = ids = [change.wallet_id for change in event.wallets]
    if len(set(ids)) < len(ids):
        raise PoisonError("wrong-shape", "wallets: one wallet has two changes")
    counterparties = [others[0] if len(others) == 1 else None, *repeat(acting, len(others))]
    text = value.decode()
    rows = []
    field = "amount"
    try:
        transaction_id, amounts_minor = _moved(event)
        field = "balance_after"
        for change, (event_type, direction), counterparty, amount_minor in zip(
            event.wallets, _sides(event), counterparties, amounts_minor, strict=True
        ):
            if change.version > VERSION_MAX:
                raise PoisonError("out-of-range", f"version: must be at most {VERSION_MAX}")
            if change.direction != direction:
                raise PoisonError("wrong-shape", f"direction: must be {direction}, is {change.direction}")
            rows.append(
                HistoryRow(
                    change.wallet_id,
                    change.version,
                    event.event_id,
                    event_type,
                    _user_id(change),
                    transaction_id,
                    direction,
                    amount_minor,
                    event.currency,
                    balance_to_minor(change.balance_after, event.currency),
                    counterparty,
                    text,
                    created_at,
                )
            )
    except AmountError as error:
        raise PoisonError("bad-amount", f"{field}: {error}") from None
    except UnknownCurrencyError as error:
        raise PoisonError("unknown-currency", f"currency: {error}") from None
    return tuple(rows)


def storable(text: str) -> str:
    """Return the text, cut to its maximal length, without NUL and lone surrogates, which PostgreSQL refuses."""
    return text[:DETAIL_LENGTH_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _parse(value: bytes) -> Any:
    """Parse strict JSON (RFC 8259): pydantic's parser accepts `NaN` and `Infinity`, and PostgreSQL refuses them."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise PoisonError("not-json", str(error)) from None


def _decode(parsed: Any) -> AnyEvent:
    try:
        return decode(parsed)
    except ValidationError as error:
        raise _poison_of(error) from None


def _poison_of(error: ValidationError) -> PoisonError:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    kinds = {item["type"] for item in errors}
    reason = "wrong-shape"
    if kinds & {"union_tag_invalid", "union_tag_not_found"}:
        reason = "unknown-type"
    elif any(item["loc"][-1:] == ("schema_version",) for item in errors):
        reason = "wrong-version"
    return PoisonError(
        reason, "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in errors)
    )


def _refuse_nul(item: Any) -> None:
    """Refuse NUL in any text: PostgreSQL's `json` stores its escape, but can't return it as text."""
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


def _sides(event: AnyEvent) -> Sequence[tuple[str, Direction | None]]:
    sides = SIDES[event.event_type]
    if isinstance(event, MovementReversed) and event.wallets[0].direction == "in":
        sides = sides[::-1]
    return *sides[: len(event.wallets)], *repeat(sides[-1], len(event.wallets) - len(sides))


def _moved(event: AnyEvent) -> tuple[UUID | None, Sequence[int | None]]:
    """Return the event's transaction, and what moved into or out of each of its wallets."""
    if isinstance(event, WalletCreated):
        return None, [None]
    amount_minor = to_minor(event.amount, event.currency) if isinstance(event, MovementEvent) else None
    return event.transaction_id, [
        amount_minor if change.amount is None else to_minor(change.amount, event.currency) for change in event.wallets
    ]


def _user_id(change: WalletChange) -> str:
    try:
        return check_user_id(change.user_id)
    except ValueError as error:
        raise PoisonError("wrong-shape", f"user_id: {error}") from None
