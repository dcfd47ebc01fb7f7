"""What an audit looks at: rows of after a time, in slices of time that are compared as one. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.money import UnknownCurrencyError, to_major

BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
SLICES: Final = 256
PRUNED_SLICE: Final = 0
"""The time in which retention has pruned the outbox: versions without an outbox row."""
KEPT_SLICE: Final = -1
"""The versions of that time whose outbox row is still there."""

_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that an audit looks at.

    Args:
        since: only rows that were created after it.
        bounds: where each slice begins, from slice 1 on, in ascending order. What lies before is `PRUNED_SLICE`.
        kept: the versions of `KEPT_SLICE`, as `wallet/version`.
        units: one minor unit in major units (`0.01`), by currency. An unknown currency has none.
    """

    since: datetime
    bounds: Sequence[datetime]
    kept: Sequence[str]
    units: Mapping[str, str]

    @property
    def slices(self) -> range:
        """The numbers of the slices."""
        return range(KEPT_SLICE, len(self.bounds) + 1)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the queries take."""
        return {"since": self.since, "bounds": list(self.bounds), "kept": list(self.kept)}

    @property
    def unit_parameters(self) -> dict[str, Any]:
        """What the queries take that write amounts as events have them."""
        return {"currencies": list(self.units), "units": list(self.units.values())}


def scope_of(figures: Mapping[str, Any], currencies: Sequence[str], kept: Sequence[str], since: datetime) -> Scope:
    """Return the scope of an audit of all rows after `since`.

    Args:
        figures: the row of `queries.WALLET_FIGURES`.
        currencies: those of the wallets.
        kept: the versions of `KEPT_SLICE`.
        since: the time up to which an earlier audit has compared everything.
    """
    pruned_up_to, oldest, newest = figures["pruned_up_to"], figures["oldest_at"], figures["taken_at"]
    first = max(since, pruned_up_to or BEGINNING) + _INSTANT
    start = max(first, oldest or newest)
    width = max((newest - start) / SLICES, _INSTANT)
    units = {currency: unit for currency in currencies if (unit := _unit(currency))}
    return Scope(since, [first, *(start + number * width for number in range(1, SLICES))], kept, units)


def _unit(currency: str) -> str | None:
    """Return one minor unit in major units, or None for an unknown currency."""
    try:
        return to_major(1, currency)
    except UnknownCurrencyError:
        return None
