"""The velocity limits of a wallet: how much, or how often, may move in a window of time. Pure.

A movement out counts what it takes from what is available, and a movement in counts what it adds. A hold counts when
it is made. Its captures count only what exceeds it; what it releases is given back, in the window in which it was made.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from common.events.parts import LimitDirection, LimitWindow
from common.moments import timestamp
from common.money import to_major
from wallet_api.hold import Hold

VELOCITY_LIMITS_MAX: Final = 10
HOLD: Final = "HOLD"
COUNTED_TYPES: Final[Mapping[LimitDirection, tuple[str, ...]]] = {
    "in": ("FUND", "TRANSFER", "SPLIT", "CAPTURE"),
    "out": ("WITHDRAW", "TRANSFER", "SPLIT", HOLD),
}
"""The types of ledger entries that count. Out of a wallet, all that happens to a hold counts as HOLD."""


class Use(NamedTuple):
    """What a movement takes from the limits in one direction; below zero, it gives back.

    Attributes:
        type: of `COUNTED_TYPES`.
        movements: how many it is.
        made_at: when the hold was made that it gives back.
    """

    direction: LimitDirection
    type: str
    amount_minor: int
    movements: int
    made_at: datetime | None = None


class VelocityLimit(NamedTuple):
    """A velocity limit, and what is used of it in its present window; money in minor units.

    Attributes:
        types: that count; none means all.
        amount_minor: the most that may move; None means any amount.
        count_max: the most movements; None means any number.
        since_version: the version of the wallet that set the limit. Later ones count.
        since: the time of that version.
        window_start: the first moment of the window.
    """

    id: str
    direction: LimitDirection
    types: tuple[str, ...]
    window: LimitWindow
    amount_minor: int | None
    count_max: int | None
    since_version: int
    since: datetime
    window_start: datetime
    used_minor: int = 0
    used_count: int = 0

    def at(self, now: datetime) -> "VelocityLimit":
        """Return the limit in the window of that time. A clock that was set back begins no window again."""
        start = window_start(self.window, now)
        if self.window == "transaction" or start <= self.window_start:
            return self
        return self._replace(window_start=start, used_minor=0, used_count=0)

    def counts(self, use: Use) -> bool:
        """Whether the use is one of this limit.

        What was held before the window, or before the limit was set, was not counted in it, and is not given back.
        """
        is_counted = self.direction == use.direction and (not self.types or use.type in self.types)
        return is_counted and (use.made_at is None or (use.made_at >= self.window_start and use.made_at > self.since))

    def refuses(self, use: Use) -> bool:
        """Whether the use is more than remains. What takes nothing is never refused."""
        if use.amount_minor <= 0:
            return False
        is_too_much = self.amount_minor is not None and self.used_minor + use.amount_minor > self.amount_minor
        # What exceeds a hold is no further movement.
        used_count = self.used_count + use.movements
        is_too_often = use.movements > 0 and self.count_max is not None and used_count > self.count_max
        return is_too_much or is_too_often

    def after(self, use: Use) -> "VelocityLimit":
        """Return the limit after the use. A limit of single transactions never has a use."""
        if self.window == "transaction":
            return self
        return self._replace(used_minor=self.used_minor + use.amount_minor, used_count=self.used_count + use.movements)


def use_of(type_: str, amount_minor: int, held_minor: int, hold: Hold | None) -> Use:
    """Return what an entry of the ledger takes from its wallet's limits, or gives back.

    Args:
        type_: of the entry.
        amount_minor: of the entry.
        held_minor: the entry's change of what is held.
        hold: before the entry, if that captures or releases it.
    """
    taken_minor = held_minor - amount_minor
    if hold is None:
        return Use("out", type_, taken_minor, 1) if taken_minor > 0 else Use("in", type_, -taken_minor, 1)
    is_unused = not amount_minor and not hold.captured_minor
    return Use("out", HOLD, taken_minor, -1 if is_unused else 0, hold.created_at if taken_minor < 0 else None)


def refusing(limits: Iterable[VelocityLimit], use: Use) -> VelocityLimit | None:
    """Return the first limit that refuses the use."""
    return next((limit for limit in limits if limit.counts(use) and limit.refuses(use)), None)


def counted(limits: Iterable[VelocityLimit], use: Use) -> tuple[VelocityLimit, ...]:
    """Return the limits after the use."""
    return tuple(limit.after(use) if limit.counts(use) else limit for limit in limits)


def window_start(window: LimitWindow, at: datetime) -> datetime:
    """Return the first moment of the window that the time is in: in UTC, and by ISO 8601 a week begins on Monday."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window == "month" else day


def resets_at(limit: VelocityLimit) -> datetime | None:
    """Return the first moment after the window; None for a limit of single transactions."""
    start = limit.window_start
    if limit.window == "transaction":
        return None
    if limit.window == "month":
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=7 if limit.window == "week" else 1)


def limit_json(limit: VelocityLimit, currency: str) -> dict[str, Any]:
    """Return the limit as it was set, as JSON values."""
    return {
        "id": limit.id,
        "direction": limit.direction,
        "types": list(limit.types) or None,
        "window": limit.window,
        "amount": None if limit.amount_minor is None else to_major(limit.amount_minor, currency),
        "count": limit.count_max,
    }


def use_json(limit: VelocityLimit, currency: str) -> dict[str, Any]:
    """Return what is used of the limit, and what remains, as JSON values."""
    remaining_minor = None if limit.amount_minor is None else max(0, limit.amount_minor - limit.used_minor)
    reset = resets_at(limit)
    return {
        "used": to_major(limit.used_minor, currency),
        "remaining": None if remaining_minor is None else to_major(remaining_minor, currency),
        "used_count": limit.used_count,
        "remaining_count": None if limit.count_max is None else max(0, limit.count_max - limit.used_count),
        "resets_at": None if reset is None else timestamp(reset),
    }
