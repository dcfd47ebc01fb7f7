import json
from collections.abc import Awaitable, Iterable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from common.money import MINOR_MAX, to_major, to_minor
from common.problems import BadRequest, ContentTooLarge, Problem, UnsupportedMediaType, ValidationProblem
from wallet_api.bodies import Body, CreateWalletBody
from wallet_api.commands import IdempotencyKey
from wallet_api.errors import IdempotencyKeyRequired
from wallet_api.operations.catalogue import OPERATIONS
from wallet_api.operations.fund import FundBody
from wallet_api.operations.set_limits import LimitsBody
from wallet_api.requests import (
    BODY_BYTES_MAX,
    is_match,
    read_body,
    read_claim,
    read_if_match,
    read_traceparent,
)

MODELS = st.sampled_from([CreateWalletBody, LimitsBody, *(operation.body for operation in OPERATIONS)])
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=70)
NUMBERS = st.integers() | st.floats() | st.integers(10**299, 10**301) | st.integers(-(2**64), 2**64)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(ANY_TEXT, children, max_size=4),
    max_leaves=12,
)
# Mostly valid, so that each invalid value is tested by itself.
VALID: dict[str, Any] = {
    "user_id": "ada",
    "currency": "EUR",
    "external_id": "x",
    "amount": "1.50",
    "reference": "rent",
    "to_wallet_id": str(UUID(int=1)),
    "legs": [{"to_wallet_id": str(UUID(int=1)), "amount": "rest"}],
    "blocks": "in",
    "reason": "stolen",
    "sweep_to_wallet_id": str(UUID(int=1)),
    "overdraft_limit": "0",
    "balance_max": None,
    "velocity": [{"id": "a", "direction": "out", "window": "day", "amount": "1.50"}],
    "metadata": {},
}
FIELDS = st.sampled_from([*VALID, "colour"])


def request_of(*chunks: bytes, content_type: str | None = "application/json") -> Request:
    messages: Iterable[Message] = iter(
        [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]
    )

    async def receive() -> Message:
        return next(iter(messages))

    headers = [(b"content-type", content_type.encode())] if content_type is not None else []
    scope = {"type": "http", "method": "POST", "path": "/wallets", "query_string": b"", "headers": headers}
    return Request(scope, receive)


def run(reading: Awaitable[Body]) -> Body:
    """Run a coroutine that never waits."""
    try:
        next(reading.__await__())
    except StopIteration as stop:
        body: Body = stop.value
        return body
    raise AssertionError("it waited")


def read(text: str | bytes, model: type[Body] = FundBody) -> Body:
    return run(read_body(request_of(text if isinstance(text, bytes) else text.encode()), model))


def outcome_of(text: str, model: type[Body]) -> Body | Problem:
    try:
        return read(text, model)
    except Problem as problem:
        return problem


def fields_of(body: dict[str, Any], model: type[Body]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name in model.model_fields or name == "colour"}


@given(MODELS, JSON)
def test_any_json_value_is_a_checked_body_or_a_problem(model: type[Body], value: Any) -> None:
    outcome = outcome_of(json.dumps(value), model)
    assert isinstance(outcome, model | BadRequest | ValidationProblem)


@given(MODELS, st.dictionaries(FIELDS, JSON, min_size=1, max_size=2), st.sets(FIELDS, max_size=1))
def test_any_value_in_any_field_is_taken_or_named_as_wrong(
    model: type[Body], changes: dict[str, Any], missing: set[str]
) -> None:
    document = fields_of({**VALID, **changes}, model)
    for field in missing:
        document.pop(field, None)
    outcome = outcome_of(json.dumps(document), model)
    if isinstance(outcome, ValidationProblem):
        assert {error["field"].partition(".")[0] for error in outcome.errors} <= changes.keys() | missing
        assert json.loads(outcome.body("/wallets"))["status"] == 422
    elif isinstance(outcome, BadRequest):
        # Lone surrogates, NaN and infinity aren't JSON.
        assert any(word in json.dumps(changes) for word in ("\\ud", "NaN", "Infinity"))
    else:
        assert isinstance(outcome, model)
        assert "colour" not in document
        again = read(outcome.model_dump_json(), model)
        assert again.model_dump(mode="json") == outcome.model_dump(mode="json")


@given(st.binary())
@example(b"")
@example(b"null")
@example(b"{}")
@example(b"\xff")
@example(b"[" * 10_000)
@example(b'{"amount":' * 5_000)
@example(b'\xef\xbb\xbf{"amount":"1"}')
def test_any_bytes_are_a_body_or_a_problem(content: bytes) -> None:
    with pytest.raises((BadRequest, ValidationProblem)):
        read(content)


@pytest.mark.parametrize(
    "text",
    [
        '{"amount":"1",}',
        "{'amount':'1'}",
        '{"amount":"1"} x',
        '{"amount":"1"}{"amount":"1"}',
        '{"amount":NaN}',
        '{"amount":Infinity}',
        '{"amount":-Infinity}',
        '{"amount":01}',
        '{"amount":.5}',
        '{"amount":1.}',
        '{"amount":+1}',
        '{"amount":0x1}',
        '{"amount":"1","amount":"2"}',
        '{"amount":"1","metadata":{"a":1,"a":2}}',
        '{"amount":"1","reference":"\\ud800"}',
        '{"amount":"1","reference":"\\udc00\\ud800"}',
        '{"amount":"1","reference":"a\nb"}',
        '{"amount":"1","metadata":' + '{"a":' * 300 + "1" + "}" * 300 + "}",
    ],
)
def test_what_is_not_json_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest, match="is not JSON"):
        read(text)


@given(st.sampled_from(["EUR", "JPY", "BHD"]), st.integers(1, MINOR_MAX), st.integers(0, 5))
@example("EUR", 2**53 + 1, 0)
@example("EUR", MINOR_MAX, 0)
@example("JPY", 100, 2)
@example("EUR", 10, 0)
def test_a_json_number_is_taken_by_its_digits_and_never_through_a_float(currency: str, minor: int, zeros: int) -> None:
    number = to_major(minor, currency)
    if zeros:
        number += ("" if "." in number else ".") + "0" * zeros
    body = read(f'{{"amount": {number}}}')
    assert isinstance(body, FundBody)
    assert to_minor(body.amount, currency) == minor


@given(st.sampled_from(["EUR", "JPY", "BHD"]), st.integers(1, MINOR_MAX))
def test_a_decimal_string_is_taken_as_it_stands(currency: str, minor: int) -> None:
    amount = to_major(minor, currency)
    body = read(json.dumps({"amount": amount}))
    assert isinstance(body, FundBody)
    assert body.amount == amount


@pytest.mark.parametrize("number", ["1e2", "1E2", "1.0e2", "1.5e10", "1e-2", "1.0e0", "10e00", "-1", "-0.0", "1.005"])
def test_a_json_number_that_is_no_plain_amount_is_refused_when_the_currency_is_known(number: str) -> None:
    body = read(f'{{"amount": {number}}}')
    assert isinstance(body, FundBody)
    with pytest.raises(ValueError, match=r"plain decimal|decimals"):
        to_minor(body.amount, "EUR")


@pytest.mark.parametrize("digits", ["9" * 300, "9" * 4000, "9" * 300 + ".5", "0." + "0" * 300 + "1"])
def test_hundreds_of_digits_are_read_and_refused_for_their_size(digits: str) -> None:
    body = read(f'{{"amount": {digits}}}')
    assert isinstance(body, FundBody)
    with pytest.raises(ValueError, match=r"must be|at most"):
        to_minor(body.amount, "EUR")


@pytest.mark.parametrize("amount", ["true", "false", "null", "[]", "{}", '["1"]'])
def test_an_amount_of_another_json_type_is_refused(amount: str) -> None:
    with pytest.raises(ValidationProblem, match=r"^amount: must be a decimal string"):
        read(f'{{"amount": {amount}}}')


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=5), max_size=60))
def test_metadata_has_at_most_fifty_keys_of_text_that_can_be_stored(metadata: dict[str, str]) -> None:
    fits = len(metadata) <= 50 and not any("\x00" in text for item in metadata.items() for text in item)
    try:
        body = read(json.dumps({"amount": "1", "metadata": metadata}))
        assert body.metadata == metadata
        assert fits
    except Problem:
        assert not fits or "\\ud" in json.dumps(metadata)


@pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740992", "1e20", "1e308", "1e999", "9" * 300])
def test_a_number_in_metadata_that_other_readers_would_change_is_refused(number: str) -> None:
    with pytest.raises(ValidationProblem, match="2\\^53 - 1; send it as a string"):
        read(f'{{"amount": "1", "metadata": {{"a": [{{"b": {number}}}]}}}}')


@given(st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2.0**53) + 1, 2.0**53 - 1))
def test_every_other_number_in_metadata_comes_back_as_it_went(number: float) -> None:
    assert read(json.dumps({"amount": "1", "metadata": {"a": number}})).metadata == {"a": number}


@pytest.mark.parametrize("text", ["a\\u0000b", "\\u0000"])
@pytest.mark.parametrize("where", ['"reference": "{}"', '"metadata": {{"a": ["{}"]}}', '"metadata": {{"{}": 1}}'])
def test_nul_characters_are_refused_wherever_they_stand(text: str, where: str) -> None:
    with pytest.raises(ValidationProblem, match="must not hold NUL characters"):
        read('{"amount": "1", ' + where.format(text) + "}")


@pytest.mark.parametrize("size", [BODY_BYTES_MAX, BODY_BYTES_MAX + 1])
@pytest.mark.parametrize("chunk_bytes", [1000, BODY_BYTES_MAX * 2])
def test_a_body_may_have_64_kib_and_not_a_byte_more_however_it_comes(size: int, chunk_bytes: int) -> None:
    content = b'{"amount": "1"}'.ljust(size)
    chunks = [content[start : start + chunk_bytes] for start in range(0, size, chunk_bytes)]
    reading = read_body(request_of(*chunks), FundBody)
    if size > BODY_BYTES_MAX:
        with pytest.raises(ContentTooLarge):
            run(reading)
    else:
        run(reading)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.bank+json"]
)
def test_json_goes_by_several_names(content_type: str) -> None:
    run(read_body(request_of(b'{"amount": "1"}', content_type=content_type), FundBody))


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "text/json", "application/jsonx", "multipart/form-data"]
)
def test_a_body_that_is_not_called_json_is_not_read(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        run(read_body(request_of(b'{"amount": "1"}', content_type=content_type), FundBody))


@given(st.text(st.characters(codec="latin-1"), max_size=300))
@example("")
@example("a" * 255)
@example("a" * 256)
@example("a b")
@example("a\n")
@example("é")
def test_a_key_is_1_to_255_visible_ascii_characters_or_a_validation_problem(key: str) -> None:
    is_key = 1 <= len(key) <= 255 and all("!" <= letter <= "~" for letter in key)
    try:
        claim = read_claim("POST", "/wallets", "ada", key, FundBody(amount="1", metadata={}), required=False)
        assert claim is not None
        assert claim.key == IdempotencyKey("ada", key)
        assert is_key
    except ValidationProblem:
        assert not is_key


def test_a_missing_key_is_fine_unless_the_server_wants_one() -> None:
    assert read_claim("POST", "/wallets", "", None, FundBody(amount="1", metadata={}), required=False) is None
    with pytest.raises(IdempotencyKeyRequired):
        read_claim("POST", "/wallets", "", None, FundBody(amount="1", metadata={}), required=True)


@given(st.text(st.characters(codec="latin-1")) | st.from_regex(r'[W/"0-9, *]*', fullmatch=True))
def test_any_if_match_is_a_set_of_versions_or_a_validation_problem(header: str) -> None:
    versions = if_match_of(header)
    if isinstance(versions, ValidationProblem):
        assert [error["field"] for error in versions.errors] == ["If-Match"]
    else:
        assert (versions is None) == (header.strip() == "*")
        assert all(f'"{version}"' in header for version in versions or ())


def if_match_of(header: str) -> frozenset[int] | ValidationProblem | None:
    try:
        return read_if_match(header)
    except ValidationProblem as problem:
        return problem


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        (' "3" ', {3}),
        ('"3", "4"', {3, 4}),
        ('"3","x" , W/"5"', {3}),
        ('W/"3"', set()),
        ('"03"', set()),
        ('"3.0"', set()),
        ('"-3"', set()),
        ('"0"', set()),
        ('"' + "9" * 40 + '"', set()),
        ('""', set()),
        ('","', set()),
        ('"3",', {3}),
        (', "3"', {3}),
        (' ,, "3" ,\t, W/"4",, "5" ,', {3, 5}),
    ],
)
def test_if_match_names_versions_by_their_strong_tags_only(header: str | None, versions: set[int] | None) -> None:
    assert read_if_match(header) == versions


@pytest.mark.parametrize("header", ["", "3", "'3'", '"3', '3"', '"3" "4"', ", ,", "w/3", '"3";', '* , "3"', "*, *"])
def test_an_if_match_that_is_no_list_of_tags_is_refused(header: str) -> None:
    with pytest.raises(ValidationProblem, match="If-Match"):
        read_if_match(header)


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("*", True),
        ('"3"', True),
        ('W/"3"', True),
        ('"2", "3"', True),
        ('"2"', False),
        ('"33"', False),
        ("3", False),
        ("", False),
    ],
)
def test_if_none_match_compares_weakly(header: str | None, matches: bool) -> None:
    assert is_match(header, '"3"') is matches


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", False),
        ("x", False),
        ("", False),
    ],
)
def test_a_broken_traceparent_is_ignored(value: str, is_taken: bool) -> None:
    assert read_traceparent({"traceparent": value}) == (value if is_taken else None)
    assert read_traceparent({}) is None


@pytest.mark.parametrize("code", ["eur", "EURO", "XXX", "", 978, None])
def test_a_currency_is_an_iso_code_in_capitals(code: Any) -> None:
    text = json.dumps({"user_id": "ada", "currency": code})
    with pytest.raises(ValidationProblem, match="currency"):
        read(text, CreateWalletBody)


@pytest.mark.parametrize("field", ["external_id", "reference"])
@pytest.mark.parametrize(("text", "is_taken"), [("", False), ("x" * 255, True), ("x" * 256, False), (None, True)])
def test_a_reference_has_1_to_255_characters_or_is_left_out(field: str, text: str | None, is_taken: bool) -> None:
    model = CreateWalletBody if field == "external_id" else FundBody
    document = json.dumps({**fields_of(VALID, model), field: text})
    if is_taken:
        assert getattr(read(document, model), field) == text
    else:
        with pytest.raises(ValidationProblem, match=field):
            read(document, model)
