import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.http.pagination import decode_cursor, encode_cursor, list_digest, next_link
from common.problems import ValidationProblem

BIGINTS = st.integers(-(2**63) + 1, 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | BIGINTS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
KINDS: list[Sequence[type]] = [[int], [UUID], [UUID, UUID], [int, UUID]]


DIGEST = list_digest("wallets", "ada", "asc")


def decoded(cursor: str, kinds: Sequence[type]) -> list[Any] | ValidationProblem:
    try:
        return decode_cursor(cursor, kinds, DIGEST)
    except ValidationProblem as problem:
        return problem


def cursor_of(document: bytes) -> str:
    return base64.urlsafe_b64encode(DIGEST + document).decode().rstrip("=")


@given(BIGINTS, st.uuids())
def test_a_cursor_comes_back_as_the_key_it_was_made_of(version: int, event_id: UUID) -> None:
    assert decode_cursor(encode_cursor([version], DIGEST), [int], DIGEST) == [version]
    assert decode_cursor(encode_cursor([str(event_id), version], DIGEST), [UUID, int], DIGEST) == [event_id, version]


@given(BIGINTS, st.uuids())
def test_a_cursor_needs_no_escaping_in_a_url(version: int, event_id: UUID) -> None:
    assert encode_cursor([str(event_id), version], DIGEST).replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("kinds", KINDS)
@given(
    cursor=st.text(st.characters(exclude_categories=[]))
    | st.binary().map(cursor_of)
    | JSON.map(lambda value: cursor_of(orjson.dumps(value)))
    | st.lists(JSON, max_size=3).map(lambda value: cursor_of(orjson.dumps(value)))
)
@example(cursor="")
@example(cursor="!")
@example(cursor="é")
@example(cursor="\ud800")
@example(cursor=cursor_of(b"[1e400]"))
@example(cursor=cursor_of(b"[1e300]"))
@example(cursor=cursor_of(b"[9223372036854775808]"))
@example(cursor=cursor_of(b'["' + b"9" * 5000 + b'"]'))
@example(cursor=cursor_of(b"[" * 5000))
@example(cursor=cursor_of(b"[[]]"))
@example(cursor=cursor_of(b"[{}]"))
@example(cursor=cursor_of(b"[null]"))
@example(cursor=cursor_of(b'["\\ud800"]'))
def test_any_other_cursor_is_a_validation_problem_or_a_key_that_fits_the_database(
    kinds: Sequence[type], cursor: str
) -> None:
    values = decoded(cursor, kinds)
    if isinstance(values, ValidationProblem):
        assert [error["field"] for error in values.errors] == ["cursor"]
        return
    assert len(values) == len(kinds)
    for value, kind in zip(values, kinds, strict=True):
        assert isinstance(value, kind)
        assert not isinstance(value, int) or -(2**63) < value < 2**63


@pytest.mark.parametrize(
    ("keyset", "kinds"),
    [([1, 2], [int]), ([], [int]), (["x"], [int]), ([5], [UUID]), (["0198c2a5"], [UUID]), ([2**63], [int])],
)
def test_a_cursor_of_another_list_is_refused(keyset: list[Any], kinds: list[type]) -> None:
    with pytest.raises(ValidationProblem):
        decode_cursor(encode_cursor(keyset, DIGEST), kinds, DIGEST)


PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.uuids() | st.none(), max_size=3)


@given(PARTS, PARTS)
def test_a_cursor_of_one_list_is_refused_by_every_other(one: list[Any], other: list[Any]) -> None:
    cursor = encode_cursor([1], list_digest(*one))
    if [str(part) if isinstance(part, UUID) else part for part in one] == [
        str(part) if isinstance(part, UUID) else part for part in other
    ]:
        assert decode_cursor(cursor, [int], list_digest(*other)) == [1]
    else:
        with pytest.raises(ValidationProblem):
            decode_cursor(cursor, [int], list_digest(*other))


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.dictionaries(st.sampled_from(["limit", "order", "x"]), st.text()),
    st.binary(max_size=40).map(cursor_of),
)
@example("李", {}, "x")
@example('a"b>c', {}, "x")
@example("a?b#c%2Fd", {"limit": "1"}, "x")
def test_a_next_link_is_ascii_and_leads_to_the_same_path_and_query_behind_the_cursor(
    user_id: str, query: dict[str, str], cursor: str
) -> None:
    raw_path = f"/users/{quote(user_id, safe='')}/wallets"
    link = next_link(raw_path.encode(), {**query, "cursor": "the last one"}, cursor)
    target, _, relation = link.removeprefix("<").partition(">")
    assert link.isascii()
    assert link.isprintable()
    assert relation == '; rel="next"'
    parts = urlsplit(target)
    assert parts.path == raw_path
    expected = {name: [value] for name, value in {**query, "cursor": cursor}.items()}
    assert parse_qs(parts.query, keep_blank_values=True) == expected


@given(st.binary())
@example(b'/users/"><b>')
@example("/größe".encode())
@example(b"/a\r\nb")
def test_no_path_breaks_out_of_a_link(raw_path: bytes) -> None:
    target = next_link(raw_path, {}, "x").removeprefix("<").partition("?")[0]
    assert target.isascii()
    assert not set(target) & set('<>"\r\n ')
