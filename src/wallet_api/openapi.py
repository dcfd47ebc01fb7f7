"""What the OpenAPI document says beyond what FastAPI sees: bodies that are read by hand, and errors."""

from typing import Any, Final

from pydantic import BaseModel

from common.problems import MEDIA_TYPE


class FieldError(BaseModel):
    """One field that is wrong."""

    field: str
    message: str


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError] | None = None


_PROBLEM_EXAMPLE: Final = {
    "type": "urn:wallet:problem:insufficient-funds",
    "title": "The wallet has not got that much",
    "status": 422,
    "detail": "amount: wallet 0198c2a5-… has 20.00 EUR, 30.00 were asked for.",
    "instance": "/wallets/0198c2a5-…/transfer",
    "code": "insufficient-funds",
}


def _problem(description: str) -> dict[str, Any]:
    return {
        "model": ProblemOut,
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}, "example": _PROBLEM_EXAMPLE}},
    }


READ_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    404: _problem("wallet-not-found"),
    422: _problem("validation-error"),
    503: _problem("unavailable"),
}

_MONEY_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _problem("bad-request: the body is not JSON"),
    404: _problem("wallet-not-found"),
    409: _problem(
        "wallet-frozen, wallet-closed, external-id-taken; with Retry-After: version-conflict, wallet-busy, "
        "idempotency-key-in-flight"
    ),
    412: _problem("version-mismatch"),
    413: _problem("content-too-large"),
    415: _problem("unsupported-media-type"),
    422: _problem(
        "validation-error, insufficient-funds, balance-limit-exceeded, currency-mismatch, same-wallet, "
        "idempotency-key-reused, idempotency-key-required"
    ),
    503: _problem("unavailable, with Retry-After"),
}


def money_documentation(body: type[BaseModel], reply: type[BaseModel], status: int) -> dict[str, Any]:
    """Return a POST route's keyword arguments: its reply, its errors and its body."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "status_code": status,
        "response_model": reply,
        "responses": _MONEY_ERRORS,
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    }
