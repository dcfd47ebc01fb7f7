import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.events.encoding import decode
from common.events.models import AnyEvent, TransferDone, WalletCreated, WalletFrozen, WalletFunded
from common.events.parts import WalletChange
from common.money import to_major

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-(2.0**53), 2.0**53) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
)
AMOUNTS = st.integers(1, 2**63 - 1).map(lambda minor: to_major(minor, "EUR"))
COMMON: dict[str, Any] = {
    "event_id": st.uuids(version=4),
    "created_at": st.datetimes(timezones=st.just(UTC)),
    "currency": st.sampled_from(["EUR", "JPY"]),
    "metadata": st.dictionaries(TEXT, JSON, max_size=5),
}
MOVEMENT: dict[str, Any] = {
    **COMMON,
    "transaction_id": st.uuids(),
    "amount": AMOUNTS,
    "reference": st.none() | TEXT,
}
CHANGES = st.builds(
    WalletChange,
    wallet_id=st.uuids(),
    user_id=TEXT,
    version=st.integers(1, 2**63 - 1),
    balance_after=AMOUNTS,
    direction=st.sampled_from(["in", "out", None]),
)
EVENTS = st.one_of(
    st.builds(WalletCreated, **COMMON, external_id=st.none() | TEXT, wallets=st.lists(CHANGES, min_size=1, max_size=1)),
    st.builds(WalletFunded, **MOVEMENT, wallets=st.lists(CHANGES, min_size=1, max_size=1)),
    st.builds(
        WalletFrozen,
        **{name: value for name, value in MOVEMENT.items() if name != "amount"},
        reason=TEXT,
        blocks=st.sampled_from(["in", "out", "all"]),
        wallets=st.lists(CHANGES, min_size=1, max_size=1),
    ),
    st.builds(TransferDone, **MOVEMENT, wallets=st.lists(CHANGES, min_size=2, max_size=2)),
)


def a_funding() -> dict[str, Any]:
    event = WalletFunded(
        event_id=UUID(int=1),
        created_at=MOMENT,
        currency="EUR",
        metadata={},
        transaction_id=UUID(int=2),
        amount="30.00",
        reference=None,
        wallets=[WalletChange(wallet_id=UUID(int=3), user_id="ada", version=2, balance_after="30.00", direction="in")],
    )
    document: dict[str, Any] = json.loads(event.encode())
    return document


@given(EVENTS)
def test_an_event_is_decoded_as_it_was_encoded(event: AnyEvent) -> None:
    assert decode(json.loads(event.encode())) == event


@given(EVENTS)
def test_an_encoded_event_says_its_type_and_its_schema_version(
    event: AnyEvent,
) -> None:
    document = json.loads(event.encode())
    assert document["schema_version"] == 1
    assert document["event_type"] == event.event_type
    assert all(isinstance(change["balance_after"], str) for change in document["wallets"])


def test_an_unknown_field_is_ignored() -> None:
    assert decode({**a_funding(), "colour": "green"}) == decode(a_funding())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"event_type": "WALLET_MELTED"},
        {"event_type": None},
        {"event_id": "x"},
        {"created_at": "2026-01-02T03:04:05"},
        {"currency": "eur"},
        {"amount": "-1.00"},
        {"amount": "1e2"},
        {"amount": 30.0},
        {"wallets": []},
        {"wallets": a_funding()["wallets"] * 2},
        {"wallets": [{**a_funding()["wallets"][0], "version": 0}]},
        {"wallets": [{**a_funding()["wallets"][0], "balance_after": "--0.01"}]},
        {"wallets": [{**a_funding()["wallets"][0], "direction": "sideways"}]},
    ],
)
def test_an_event_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        decode({**a_funding(), **change})


@pytest.mark.parametrize("field", sorted(a_funding().keys() - {"schema_version"}))
def test_an_event_without_one_of_its_fields_is_refused(field: str) -> None:
    event = a_funding()
    del event[field]
    with pytest.raises(ValidationError):
        decode(event)


@given(JSON)
def test_any_other_value_is_a_validation_error_and_never_another_one(value: object) -> None:
    with pytest.raises(ValidationError):
        decode(value)
