"""From an HTTP request to a validated body: each invalid request gets a 4xx that says what to change."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import jiter
from fastapi import Header, Query
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from common.problems import (
    BadRequest,
    ContentTooLarge,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
    ValidationProblem,
)
from wallet_api.bodies import Body
from wallet_api.commands import IdempotencyClaim, IdempotencyKey
from wallet_api.errors import IdempotencyKeyRequired
from wallet_api.idempotency.idempotency import request_hash

BODY_BYTES_MAX: Final = 64 * 1024

KEY_PATTERN: Final = "[!-~]{1,255}"
"""Of an idempotency key."""

_KEY = re.compile(KEY_PATTERN)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# Empty elements are left out (RFC 9110, section 5.6.1).
_ENTITY_TAGS = re.compile(r'[\s,]*(?:W/)?"[^"]*"(?:\s*,[\s,]*(?:W/)?"[^"]*")*[\s,]*')
_ENTITY_TAG = re.compile(r'"[^"]*"')
_STRONG_VERSION = re.compile(r'(?<!W/)"([1-9][0-9]{0,17})"')


BodyT = TypeVar("BodyT", bound=Body)

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=f"^{_KEY.pattern}$",
        description="1 to 255 visible ASCII characters. A repeated request with the same key gets the first reply.",
    ),
]
_IF_MATCH: Final = {
    "pattern": rf"^(\*|{_ENTITY_TAGS.pattern})$",
    "description": 'The wallet\'s version as an ETag, such as "3".',
}
IfMatchHeader = Annotated[str | None, Header(alias="If-Match", **_IF_MATCH)]
REQUIRED_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": _IF_MATCH["description"],
    "schema": {"type": "string", "pattern": _IF_MATCH["pattern"]},
}
"""The same header in the OpenAPI document of a route that needs it. FastAPI would refuse its absence with 422."""

PreviewQuery = Annotated[
    bool,
    Query(
        description="`true`: reply what the request would do now, and do nothing. The reply has `preview: true`, status"
        " 200, no ETag, and null for the ids that the operation would make. The idempotency key is ignored.",
    ),
]


def read_preview(request: Request) -> bool:
    """Return whether the query asks for a preview.

    Raises:
        ValidationProblem: it is neither `true` nor `false`.
    """
    # Nearly no request has a query.
    if not request.scope["query_string"]:
        return False
    value = request.query_params.get("preview", "false")
    if value not in {"true", "false"}:
        raise ValidationProblem.of("preview", "must be true or false")
    return value == "true"


async def read_body(request: Request, model: type[BodyT]) -> BodyT:
    """Return the request's body, validated.

    Raises:
        UnsupportedMediaType, UnsupportedContentEncoding, ContentTooLarge, BadRequest: it can't be parsed.
        ValidationProblem: a field is wrong; all of them are named.
    """
    document = await read_document(request)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ValidationProblem.of_errors(error.errors()) from error


async def read_document(request: Request, bytes_max: int = BODY_BYTES_MAX) -> dict[str, Any]:
    """Return the JSON object that the request's body is.

    Raises:
        UnsupportedMediaType, UnsupportedContentEncoding, ContentTooLarge, BadRequest: it can't be parsed.
        ValidationProblem: it is no object.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType("Content-Type: send application/json.")
    encodings = {encoding.strip().lower() for encoding in request.headers.get("content-encoding", "").split(",")}
    if encodings - {"", "identity"}:
        raise UnsupportedContentEncoding("Content-Encoding: send the body without compression.")
    document = _parse(await _read_bounded(request, bytes_max))
    if not isinstance(document, dict):
        raise ValidationProblem("body: must be a JSON object")
    return document


async def _read_bounded(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > bytes_max:
                raise ContentTooLarge(f"body: must have at most {bytes_max} bytes. Send less metadata.")
    except ClientDisconnect as error:
        raise BadRequest("body: the client disconnected before its end.") from error
    return bytes(body)


def _parse(body: bytes) -> Any:
    try:
        return jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="lossless-float")
    except ValueError as error:
        raise BadRequest(f"body: is not JSON: {error}. Send a JSON object.") from error


def read_claim(
    method: str, target: str, caller_id: str, key: str | None, body: BaseModel, *, required: bool
) -> IdempotencyClaim | None:
    """Return a request's idempotency claim.

    Args:
        method: POST or PUT.
        target: the route's path with its parsed ids, however the client spelled them.
        caller_id: of the caller, to which the key belongs.
        key: the client's.
        body: parsed.
        required: whether the server requires a key.

    Raises:
        IdempotencyKeyRequired: the server requires a key, and the client sent none.
        ValidationProblem: it isn't a key.
    """
    if key is None:
        if required:
            raise IdempotencyKeyRequired(
                f"Idempotency-Key: send a unique key with each {method}, such as a UUID, or an external_id in the body."
            )
        return None
    if not _KEY.fullmatch(key):
        raise ValidationProblem.of("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
    return claim_of(method, target, caller_id, key, body.model_dump(mode="json"))


def claim_of(method: str, target: str, caller_id: str, key: str, body: Mapping[str, Any]) -> IdempotencyClaim:
    """Return the idempotency claim of a request with this body, as JSON."""
    return IdempotencyClaim(IdempotencyKey(caller_id, key), request_hash(method, target, body))


def read_if_match(header: str | None) -> frozenset[int] | None:
    """Return the versions that `If-Match` names, or None where any version matches (RFC 9110, section 13.1.1).

    Weak tags never match: the comparison is the strong one.

    Raises:
        ValidationProblem: it isn't a list of entity tags.
    """
    if header is None or header.strip() == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(header.strip()):
        raise ValidationProblem.of("If-Match", 'must be the ETag of the wallet, such as "3"')
    return frozenset(int(version) for version in _STRONG_VERSION.findall(header))


def is_match(if_none_match: str | None, etag: str) -> bool:
    """Whether `If-None-Match` names the entity tag: a weak comparison (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ENTITY_TAG.findall(if_none_match)


def read_traceparent(headers: Mapping[str, str]) -> str | None:
    """Return the W3C `traceparent` if it is one; a broken one is ignored (Trace Context, section 3.2.2)."""
    value = headers.get("traceparent")
    return value if value and _TRACEPARENT.fullmatch(value) else None
