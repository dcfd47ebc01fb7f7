"""One line for each field that a route reads (RFC 9110, section 5.3)."""

import pytest

from common.http.heads import LIST_FIELDS, SINGLE_FIELDS, Field, one_line_each
from common.problems import BadRequest


@pytest.mark.parametrize("name", sorted(SINGLE_FIELDS))
@pytest.mark.parametrize("values", [[b"a", b"b"], [b"b", b"a"], [b"a", b"a"], [b"", b"a"], [b"a", b"b", b"c"]])
def test_more_than_one_line_of_a_field_of_one_value_is_refused_by_its_name(name: bytes, values: list[bytes]) -> None:
    fields = [(b"host", b"a"), *((name, value) for value in values)]
    with pytest.raises(BadRequest) as refused:
        one_line_each(fields)
    assert [error["field"].encode().lower() for error in refused.value.errors] == [name]


@pytest.mark.parametrize("name", sorted(LIST_FIELDS))
def test_the_lines_of_a_list_are_joined_in_their_order(name: bytes) -> None:
    fields = [(name, b'"1", "2"'), (b"host", b"a"), (name, b'"3"'), (name, b"")]
    assert dict(one_line_each(fields)) == {b"host": b"a", name: b'"1", "2", "3", '}


def test_a_repeated_traceparent_is_dropped() -> None:
    assert one_line_each([(b"traceparent", b"a"), (b"host", b"a"), (b"traceparent", b"a")]) == [(b"host", b"a")]


def test_fields_that_no_route_reads_stay_unchanged() -> None:
    fields: list[Field] = [(b"x", b"1"), (b"accept", b"a"), (b"x", b"2"), (b"accept", b"b")]
    assert one_line_each(fields) == fields
