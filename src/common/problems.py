"""Errors that a client sees: RFC 9457 problem details. Pure, so that the money rules can return them.

Problem
├── ValidationProblem          422 validation-error
├── BadRequest                 400 bad-request
├── Unauthorized               401 unauthorized (+ WWW-Authenticate)
├── Forbidden                  403 forbidden
├── RouteNotFound              404 not-found
├── MethodNotAllowed           405 method-not-allowed
├── RequestTimeout             408 request-timeout
├── ContentTooLarge            413 content-too-large
├── UnsupportedMediaType       415 unsupported-media-type
├── UnsupportedContentEncoding 415 unsupported-content-encoding (+ Accept-Encoding)
├── HeadersTooLarge            431 headers-too-large
├── TooManyRequests            429 too-many-requests (+ Retry-After)
├── InternalError              500 internal-error
└── Unavailable                503 unavailable (+ Retry-After)
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson

MEDIA_TYPE = "application/problem+json"

_MISSING = "no-credentials"


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Base of all: its leaves know their status, their stable `code` and their title.

    Args:
        detail: names the field and the way out, for a person.
        errors: `{"field", "message"}` for each field that is wrong.
        extensions: further members of the document.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    retry_after_seconds: ClassVar[int | None] = None
    decided: ClassVar[bool] = False
    """Whether a repeated request with the same idempotency key gets this reply again."""

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.extensions = extensions or {}

    @classmethod
    def type_uri(cls) -> str:
        """Return the problem type: a stable URN, listed in `docs/errors.md`."""
        return f"urn:wallet:problem:{cls.code}"

    def body(self, instance: str) -> bytes:
        """Return the problem document; `instance` is the path of the request."""
        document = {
            "type": self.type_uri(),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            **self.extensions,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return orjson.dumps(document)

    def headers(self) -> dict[str, str]:
        """Return the headers that go with the document."""
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(self.retry_after_seconds)}


class ValidationProblem(Problem):
    """The request is well formed, and a field, a header, the path or the query has an invalid value."""

    status = 422
    code = "validation-error"
    title = "Validation error"
    decided = True

    @classmethod
    def of(cls, field: str, message: str) -> "ValidationProblem":
        """Return the problem of one field."""
        return cls(f"{field}: {message}", errors=[{"field": field, "message": message}])

    @classmethod
    def of_errors(cls, errors: Iterable[Mapping[str, Any]]) -> "ValidationProblem":
        """Return the problem of the errors that pydantic found, each with its `loc` and `msg`."""
        fields = [
            {
                "field": ".".join(str(part) for part in error["loc"] if part not in {"path", "query", "header"})
                or "body",
                "message": str(error["msg"]).removeprefix("Value error, "),
            }
            for error in errors
        ]
        return cls("; ".join(f"{item['field']}: {item['message']}" for item in fields), errors=fields)


class BadRequest(Problem):
    """The body is not JSON, or the request is not valid HTTP."""

    status = 400
    code = "bad-request"
    title = "Bad request"


class Unauthorized(Problem):
    """The request has no credentials, or none that are valid (RFC 9110, section 15.5.2; RFC 6750)."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"

    def __init__(self, detail: str, reason: str, key_id: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        """Why, for the metric and the log. The client isn't told."""
        self.key_id = key_id
        """The id of the API key, if there is one."""

    @classmethod
    def missing(cls) -> "Unauthorized":
        """Return the problem of a request without credentials."""
        return cls(
            "Authorization: the request has no credentials. Send Authorization: Bearer with an API key or a token.",
            _MISSING,
        )

    @classmethod
    def invalid(cls, reason: str, key_id: str | None = None) -> "Unauthorized":
        """Return the problem of a request with credentials that are not valid: the same for each reason."""
        return cls("Authorization: the credentials are not valid. Send valid ones.", reason, key_id)

    def headers(self) -> dict[str, str]:
        """Return the challenge (RFC 6750, section 3), which has no error code if there were no credentials."""
        error = "" if self.reason == _MISSING else ', error="invalid_token"'
        return {"WWW-Authenticate": f'Bearer realm="wallet"{error}'}


class Forbidden(Problem):
    """The caller is known, and may not do this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"

    def __init__(self, detail: str, scope: str | None = None) -> None:
        super().__init__(detail)
        self._scope = scope

    def headers(self) -> dict[str, str]:
        """Return the challenge that names the missing scope, if it is that (RFC 6750, section 3.1)."""
        if self._scope is None:
            return {}
        return {"WWW-Authenticate": f'Bearer realm="wallet", error="insufficient_scope", scope="{self._scope}"'}


class RouteNotFound(Problem):
    """The path does not exist."""

    status = 404
    code = "not-found"
    title = "Not found"


class MethodNotAllowed(Problem):
    """The path exists, and does not support this method."""

    status = 405
    code = "method-not-allowed"
    title = "Method not allowed"


class RequestTimeout(Problem):
    """The rest of the request did not arrive in time (RFC 9110, section 15.5.9)."""

    status = 408
    code = "request-timeout"
    title = "Request timeout"


class ContentTooLarge(Problem):
    """The body is larger than the limit."""

    status = 413
    code = "content-too-large"
    title = "Content too large"


class UnsupportedMediaType(Problem):
    """The body is not JSON by its content type."""

    status = 415
    code = "unsupported-media-type"
    title = "Unsupported media type"


class UnsupportedContentEncoding(Problem):
    """The body is compressed (RFC 9110, section 15.5.16)."""

    status = 415
    code = "unsupported-content-encoding"
    title = "Unsupported content encoding"

    def headers(self) -> dict[str, str]:
        """Return the encodings that are supported: none."""
        return {"Accept-Encoding": "identity"}


class HeadersTooLarge(Problem):
    """The request line and the headers are larger than the limit (RFC 6585, section 5)."""

    status = 431
    code = "headers-too-large"
    title = "Request headers too large"


class TooManyRequests(Problem):
    """The caller, or the address, has sent more requests than its limit allows (RFC 6585, section 4)."""

    status = 429
    code = "too-many-requests"
    title = "Too many requests"

    def __init__(self, detail: str, retry_after_seconds: int = 1, **more: Any) -> None:
        super().__init__(detail, **more)
        self._retry_after_seconds = retry_after_seconds

    def headers(self) -> dict[str, str]:
        """Return when the next request is allowed."""
        return {"Retry-After": str(self._retry_after_seconds)}


class InternalError(Problem):
    """A defect of the server; its log has the cause."""

    status = 500
    code = "internal-error"
    title = "Internal server error"


class Unavailable(Problem):
    """The database is unavailable, the server is at capacity, or the outcome of a commit is unknown."""

    status = 503
    code = "unavailable"
    title = "Service unavailable"
    retry_after_seconds = 1
