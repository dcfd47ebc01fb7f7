"""A record's headers, beside its value."""

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from history_consumer.consumer.records import headers_of, source_epoch_of


@given(st.integers(1, 999_999_999))
def test_an_epoch_is_the_number_in_its_header(epoch: int) -> None:
    assert source_epoch_of([("other", b"7"), ("ce_sourceepoch", str(epoch).encode())]) == epoch


def test_a_record_without_the_header_is_of_the_first_epoch() -> None:
    assert source_epoch_of([("other", b"7")]) == 1
    assert source_epoch_of(headers_of(Message())) == 1


@pytest.mark.parametrize(
    "header", [None, b"", b"0", b"01", b"-1", b"+1", b"1.0", b" 1", b"1\n", b"x", b"\xff", b"9" * 5000]
)
def test_a_malformed_header_names_no_epoch(header: bytes | None) -> None:
    assert source_epoch_of([("ce_sourceepoch", header)]) == 0
