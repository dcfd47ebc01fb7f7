"""Any bytes give rows that PostgreSQL takes, or a PoisonError with a reason."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events.models import EVENT_MODELS, AnyEvent
from common.money import MINOR_MAX, to_major
from history_consumer.projection import DETAIL_LENGTH_MAX, PoisonError, rows_of
from support.history_events import Wallet

A, B, EVENT, TRANSACTION, C = (str(UUID(int=number)) for number in range(1, 6))
BIG = 2**63 - 1


def change(wallet_id: str, direction: str | None, **more: Any) -> dict[str, Any]:
    return {
        "wallet_id": wallet_id,
        "user_id": "ada",
        "version": 1,
        "balance_after": "0.00",
        "direction": direction,
        **more,
    }


def event(kind: str = "TRANSFER_DONE", **more: Any) -> dict[str, Any]:
    wallets = {
        "WALLET_CREATED": [change(A, None)],
        "WALLET_FUNDED": [change(A, "in")],
        "WALLET_WITHDRAWN": [change(A, "out")],
        "TRANSFER_DONE": [change(A, "out"), change(B, "in")],
        "SPLIT_DONE": [change(A, "out"), change(B, "in", amount="10.00"), change(C, "in", amount="20.00")],
    }
    return {
        "event_type": kind,
        "schema_version": 1,
        "event_id": EVENT,
        "created_at": "2026-01-02T03:04:05+02:00",
        "currency": "EUR",
        "metadata": {},
        "external_id": None,
        "transaction_id": TRANSACTION,
        "amount": "30.00",
        "reference": None,
        "wallets": wallets.get(kind, []),
        **more,
    }


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def assert_storable(text: str) -> None:
    assert 1 <= len(text) <= DETAIL_LENGTH_MAX
    assert "\x00" not in text
    text.encode()


def assert_rows_or_poison(value: bytes) -> None:
    try:
        rows = rows_of(value)
    except PoisonError as error:
        assert_storable(error.detail)
        return
    for row in rows:
        assert 1 <= row.wallet_version <= BIG
        assert row.amount_minor is None or 1 <= row.amount_minor <= BIG
        assert 0 <= row.balance_after_minor <= BIG
        assert row.created_at.tzinfo is UTC
        assert "\x00" not in row.user_id
        assert row.event_data.encode() == value


def test_a_transfer_gives_two_rows_the_senders_first() -> None:
    value = encoded(event(wallets=[change(A, "out", balance_after="20.00", version=3), change(B, "in")]))
    sent, received = rows_of(value)
    assert (sent.event_type, sent.direction, sent.wallet_id) == ("TRANSFER_SENT", "out", UUID(A))
    assert (received.event_type, received.direction, received.wallet_id) == ("TRANSFER_RECEIVED", "in", UUID(B))
    assert (sent.counterparty_wallet_id, received.counterparty_wallet_id) == (UUID(B), UUID(A))
    assert (sent.amount_minor, sent.balance_after_minor, sent.wallet_version) == (3000, 2000, 3)
    assert (received.amount_minor, received.balance_after_minor, received.wallet_version) == (3000, 0, 1)
    assert sent.transaction_id == received.transaction_id == UUID(TRANSACTION)
    assert sent.created_at == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)


def test_a_split_gives_the_payer_the_whole_amount_and_each_receiver_its_own() -> None:
    paid, *received = rows_of(encoded(event("SPLIT_DONE")))
    assert (paid.event_type, paid.direction, paid.wallet_id) == ("SPLIT_SENT", "out", UUID(A))
    assert (paid.amount_minor, paid.counterparty_wallet_id) == (3000, None)
    assert [(row.event_type, row.direction, row.counterparty_wallet_id) for row in received] == [
        ("SPLIT_RECEIVED", "in", UUID(A))
    ] * 2
    assert [(row.wallet_id, row.amount_minor) for row in received] == [(UUID(B), 1000), (UUID(C), 2000)]


def test_a_split_to_one_receiver_has_counterparties_as_a_transfer_has() -> None:
    paid, received = rows_of(encoded(event("SPLIT_DONE", wallets=[change(A, "out"), change(B, "in")])))
    assert (paid.counterparty_wallet_id, received.counterparty_wallet_id) == (UUID(B), UUID(A))
    assert paid.amount_minor == received.amount_minor == 3000


def reversal(*changes: dict[str, Any]) -> bytes:
    link = {"reverses_transaction_id": EVENT, "reason": "goods returned"}
    return encoded(event("MOVEMENT_REVERSED", wallets=list(changes), **link))


def test_a_reversal_is_sent_by_the_wallet_that_gives_back_and_received_by_the_other_whichever_is_first() -> None:
    out, back = change(A, "out"), change(B, "in")
    for changes in ([out, back], [back, out], [out], [back]):
        for told, row in zip(changes, rows_of(reversal(*changes)), strict=True):
            kind = "REVERSAL_SENT" if told is out else "REVERSAL_RECEIVED"
            assert (str(row.wallet_id), row.event_type, row.direction) == (told["wallet_id"], kind, told["direction"])
            assert row.amount_minor == 3000
            other = next((str(row.wallet_id) for row in rows_of(reversal(*changes)) if row.event_type != kind), None)
            assert row.counterparty_wallet_id == (other and UUID(other))


def test_a_reversal_of_a_split_gives_each_receiver_its_own_amount() -> None:
    gave = [change(B, "out", amount="10.00"), change(C, "out", amount="20.00")]
    got, *given = rows_of(reversal(change(A, "in"), *gave))
    assert (got.event_type, got.amount_minor, got.counterparty_wallet_id) == ("REVERSAL_RECEIVED", 3000, None)
    assert [(row.event_type, row.amount_minor, row.counterparty_wallet_id) for row in given] == [
        ("REVERSAL_SENT", 1000, UUID(A)),
        ("REVERSAL_SENT", 2000, UUID(A)),
    ]


@pytest.mark.parametrize("directions", [("in", "in"), ("out", "out"), ("in", "out", "in"), (None,), ("in", None)])
def test_a_reversal_in_which_money_does_not_move_between_its_wallets_is_poison(
    directions: tuple[str | None, ...],
) -> None:
    changes = [change(id_, direction) for id_, direction in zip((A, B, C), directions, strict=False)]
    with pytest.raises(PoisonError, match="direction: must be"):
        rows_of(reversal(*changes))


def test_a_creation_moves_no_money() -> None:
    (row,) = rows_of(encoded(event("WALLET_CREATED")))
    assert (row.event_type, row.direction, row.amount_minor, row.transaction_id) == ("WALLET_CREATED", None, None, None)
    assert row.counterparty_wallet_id is None


def test_a_balance_below_zero_is_that_of_an_overdrawn_wallet() -> None:
    (row,) = rows_of(encoded(event("WALLET_WITHDRAWN", wallets=[change(A, "out", balance_after="-30.05")])))
    assert (row.balance_after_minor, row.amount_minor) == (-3005, 3000)


def test_a_fund_has_no_counterparty() -> None:
    (row,) = rows_of(encoded(event("WALLET_FUNDED")))
    assert (row.event_type, row.direction, row.amount_minor) == ("WALLET_FUNDED", "in", 3000)
    assert row.counterparty_wallet_id is None


def test_an_event_is_stored_as_it_came() -> None:
    value = b'{ "extra" : 1.0 ,' + encoded(event("WALLET_CREATED")).lstrip(b"{")
    assert rows_of(value)[0].event_data == value.decode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b"{", "not-json"),
        (b"\x00", "not-json"),
        (b"[" * 5000, "not-json"),
        (b"[]", "wrong-shape"),
        (b"null", "wrong-shape"),
        (b"{}", "unknown-type"),
        (encoded(event("WALLET_MELTED")), "unknown-type"),
        (encoded(event("A\x00B")), "unknown-type"),
        (encoded(event(schema_version=2)), "wrong-version"),
        (encoded(event(wallets=[])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "out"), change(A, "in")])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "in"), change(B, "out")])), "wrong-shape"),
        (encoded(event("SPLIT_DONE", wallets=[change(A, "out")])), "wrong-shape"),
        (encoded(event("SPLIT_DONE", wallets=[change(A, "out"), change(B, "in"), change(B, "in")])), "wrong-shape"),
        (encoded(event("SPLIT_DONE", wallets=[change(A, "out"), change(B, "in"), change(C, "out")])), "wrong-shape"),
        (encoded(event("SPLIT_DONE", wallets=[change(A, "out"), change(B, "in", amount="0")])), "bad-amount"),
        (encoded(event("SPLIT_DONE", wallets=[change(A, "out"), change(B, "in", amount=1)])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "out", user_id=""), change(B, "in")])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "out", user_id="x" * 5000), change(B, "in")])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "out", version=0), change(B, "in")])), "wrong-shape"),
        (encoded(event(wallets=[change(A, "out", version=BIG + 1), change(B, "in")])), "out-of-range"),
        (encoded(event(created_at="0001-01-01T00:00:00+14:00")), "out-of-range"),
        (encoded(event(created_at="2026-01-02T03:04:05")), "wrong-shape"),
        (encoded(event(metadata={"x": "a\x00b"})), "nul-character"),
        (encoded(event(metadata={"x": [{"a\x00b": 1}]})), "nul-character"),
        (encoded(event(metadata={"x": float("nan")})), "not-json"),
        (encoded(event(amount="0.00")), "bad-amount"),
        (encoded(event(amount="1.001")), "bad-amount"),
        (encoded(event(amount=to_major(MINOR_MAX + 1, "EUR"))), "bad-amount"),
        (encoded(event(amount="-1.00")), "wrong-shape"),
        (encoded(event(amount=1)), "wrong-shape"),
        (encoded(event(currency="ZZZ")), "unknown-currency"),
        (encoded(event(currency="XAU")), "unknown-currency"),
    ],
)
def test_poison_has_a_reason_and_a_detail(value: bytes | None, reason: str) -> None:
    with pytest.raises(PoisonError) as raised:
        rows_of(value)
    assert raised.value.reason == reason
    assert_storable(raised.value.detail)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert rows_of(encoded(event("WALLET_CREATED", metadata={"path": "C:\\u0000"})))


def test_the_largest_values_fit() -> None:
    most = to_major(MINOR_MAX, "EUR")
    (row,) = rows_of(
        encoded(event("WALLET_FUNDED", amount=most, wallets=[change(A, "in", balance_after=most, version=BIG)]))
    )
    assert (row.amount_minor, row.balance_after_minor, row.wallet_version) == (MINOR_MAX, MINOR_MAX, BIG)


@given(st.binary())
def test_any_bytes_give_rows_or_poison(value: bytes) -> None:
    assert_rows_or_poison(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*event(), *change(A, None, amount="1")])


@given(
    st.sampled_from([model.model_fields["event_type"].default for model in EVENT_MODELS]),
    st.dictionaries(fields, json_values | st.integers() | st.text(), max_size=3),
    st.booleans(),
)
def test_any_field_may_be_anything(kind: str, wrong: dict[str, Any], inside: bool) -> None:
    value = event(kind)
    if inside:
        value["wallets"] = [{**item, **wrong} for item in value["wallets"]]
    assert_rows_or_poison(encoded({**value, **wrong} if not inside else value))


@pytest.mark.parametrize("user_id", ["..", "ada/", "e\u0301", "\u3164"])
def test_an_event_with_a_user_id_that_the_api_refuses_today_is_applied(user_id: str) -> None:
    (row,) = rows_of(Wallet(user_id).created().encode().encode())
    assert row.user_id == user_id


@given(st.data())
def test_any_damage_to_an_event_gives_rows_or_poison(data: st.DataObject) -> None:
    value = bytearray(encoded(event(data.draw(st.sampled_from(["TRANSFER_DONE", "SPLIT_DONE"])))))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    assert_rows_or_poison(bytes(value))


@given(st.integers(1, 10**12), st.integers(0, 5), st.sampled_from(["created", "funded", "sent", "split"]))
def test_an_event_that_the_api_encodes_gives_its_rows(cents: int, version: int, kind: str) -> None:
    sender, receiver = Wallet(version=version), Wallet("größe", version=7)
    amount = to_major(cents, "EUR")
    sender.balance += 10**12
    done: AnyEvent
    if kind == "created":
        done = sender.created()
    elif kind == "split":
        done = sender.split((receiver, amount), (Wallet(), amount))
    else:
        done = sender.funded(amount) if kind == "funded" else sender.sent(receiver, amount)
    rows = rows_of(done.encode().encode())
    assert [(row.wallet_id, row.wallet_version, row.user_id) for row in rows] == [
        (change.wallet_id, change.version, change.user_id) for change in done.wallets
    ]
    for row, wallet in zip(rows, done.wallets, strict=True):
        assert (row.event_id, row.created_at, row.currency) == (done.event_id, done.created_at, "EUR")
        assert to_major(row.balance_after_minor, "EUR") == wallet.balance_after
        assert row.direction == wallet.direction
        amount_minor = 2 * cents if row.event_type == "SPLIT_SENT" else cents
        assert row.amount_minor == (None if kind == "created" else amount_minor)
