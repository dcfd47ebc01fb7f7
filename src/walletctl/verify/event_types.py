"""SQL that translates between the types of ledger entries, of events and of the history's rows. Pure.

The models of the events and the history's projection say how. A new type of transaction needs no line here.
"""

from collections.abc import Mapping
from typing import Final

from common.events.models import TRANSACTION_EVENTS, event_type_of
from history_consumer.projection import SIDES

_EVENT_TYPES: Final = {transaction: event_type_of(model) for transaction, model in TRANSACTION_EVENTS.items()}
_HISTORY_TYPES: Final = {
    (direction or "", event_type): history_type
    for event_type, sides in SIDES.items()
    for history_type, direction in sides
    if history_type != event_type
}


def event_type(transaction_type: str) -> str:
    """Return SQL for the event's type, of the SQL for the type of a ledger entry."""
    return _case(transaction_type, _EVENT_TYPES, transaction_type)


def history_type(direction: str, event_type: str) -> str:
    """Return SQL for the type of the history's row, of the SQL for its direction and the event's type."""
    types = {side + event: history for (side, event), history in _HISTORY_TYPES.items()}
    return _case(f"{direction} || {event_type}", types, event_type)


def told_type(direction: str, history_type: str) -> str:
    """Return SQL for the event's type, of the SQL for a row's direction and type: the inverse of `history_type`.

    A row with the event's type, where it must have a type of its own, gets none.
    """
    told = {side + history: event for (side, event), history in _HISTORY_TYPES.items()}
    untold = {side + event: "" for side, event in _HISTORY_TYPES}
    return _case(f"{direction} || {history_type}", told | untold, history_type)


def _case(value: str, results: Mapping[str, str], otherwise: str) -> str:
    cases = " ".join(f"WHEN '{name}' THEN '{result}'" for name, result in results.items())
    return f"CASE {value} {cases} ELSE {otherwise} END"
