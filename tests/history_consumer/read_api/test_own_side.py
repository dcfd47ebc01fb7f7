"""What each party of each type of event reads in the history: its own side, and nothing that is private to another."""

import json
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from common.events.models import EVENT_MODELS, AnyEvent, event_type_of
from history_consumer.projection import SIDES, rows_of
from history_consumer.read_api.replies import item_json

Json = dict[str, Any]
MOMENT = "2026-11-26T12:00:00Z"
TWO_WALLETS_OR_MORE = [model for model in EVENT_MODELS if len(SIDES[event_type_of(model)]) > 1]
HOLD_ID, ORIGINAL = str(uuid4()), str(uuid4())
HOLD = {
    "amount": "41.13",
    "capture_max": "42.13",
    "captured": "43.13",
    "remaining": "44.13",
    "expires_at": "2031-03-17T00:00:00Z",
}
FIELDS: Json = {
    "schema_version": 1,
    "event_id": str(uuid4()),
    "created_at": MOMENT,
    "currency": "EUR",
    "metadata": {"said": "to both"},
    "transaction_id": str(uuid4()),
    "reference": "the reference",
    "external_id": "the order of the client",
    "amount": "30.00",
    "reverses_transaction_id": ORIGINAL,
    "reason": "goods returned",
}
"""A value for each field of the events that more than one wallet takes part in. A new field needs one here."""


def change(number: int, direction: str, amount: str | None) -> Json:
    own = {"amount": amount} if amount else {}
    money = {"balance_after": f"7{number}.17", "held_after": f"8{number}.18"}
    return {
        "wallet_id": str(UUID(int=number + 1)),
        "user_id": f"user-{number}",
        "version": 9100 + number,
        "direction": direction,
        **money,
        **own,
    }


def private_to(wallet: Json) -> set[str]:
    """Return what only the owner of this wallet may read of its part in the event."""
    return {wallet["user_id"], str(wallet["version"]), wallet["balance_after"], wallet["held_after"]}


def event_of(model: type[AnyEvent], count: int) -> Json:
    """Return an event with so many wallets: the first pays all, each other one gets an amount of its own."""
    amounts = [None, *(None if count == 2 else f"1{number}.19" for number in range(1, count))]
    wallets = [change(number, "in" if number else "out", amount) for number, amount in enumerate(amounts)]
    hold = {
        "id": HOLD_ID,
        "wallet_id": wallets[0]["wallet_id"],
        "to_wallet_id": wallets[1]["wallet_id"],
        "status": "open",
        **HOLD,
    }
    values = {**FIELDS, "event_type": event_type_of(model), "wallets": wallets, "hold": hold}
    return {name: values[name] for name in model.model_fields}


@pytest.mark.parametrize("model", TWO_WALLETS_OR_MORE, ids=event_type_of)
@pytest.mark.parametrize("count", [2, 3])
def test_each_party_of_each_event_reads_its_own_side_and_nothing_private_of_another(
    model: type[AnyEvent], count: int
) -> None:
    most = next(rule.max_length for rule in model.model_fields["wallets"].metadata if hasattr(rule, "max_length"))
    event = event_of(model, min(count, most))
    # Of an event type that this release does not know yet, in a field of its own.
    rows = rows_of(json.dumps({**event, "of_tomorrow": "a secret of tomorrow"}).encode())
    of_payer = {event["external_id"], "a secret of tomorrow", *(HOLD.values() if "hold" in event else ())}
    for number, row in enumerate(rows):
        item = item_json({**row._asdict(), "recorded_at": row.created_at})  # type: ignore[arg-type]
        told = orjson.dumps(item).decode()
        others = [wallet for wallet in event["wallets"] if wallet is not event["wallets"][number]]
        private = set[str]().union(*map(private_to, others), (each["amount"] for each in others if "amount" in each))
        private |= of_payer if number else set()
        assert not [secret for secret in private if secret in told]
        own = {*private_to(event["wallets"][number]), *(() if number else of_payer)}
        assert [word for word in own if word not in told] == []
        both = [FIELDS[name] for name in ("reference", "reverses_transaction_id", "reason") if name in event]
        assert [word for word in (*both, *([HOLD_ID] if "hold" in event else ())) if word not in told] == []


def test_the_events_of_several_wallets_are_all_there() -> None:
    """The other types have one wallet, whose owner reads all of them."""
    assert {event_type_of(model) for model in TWO_WALLETS_OR_MORE} == {
        "TRANSFER_DONE",
        "SPLIT_DONE",
        "HOLD_CAPTURED",
        "MOVEMENT_REVERSED",
    }
