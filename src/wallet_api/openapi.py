"""What the OpenAPI document says beyond FastAPI's signatures: bodies that the endpoints read, and errors."""

from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel

from common.http.authorization import ACCESS_ERRORS
from common.http.openapi import problem_documentation
from common.problems import Problem
from wallet_api.bodies import OperationBody
from wallet_api.errors import IfMatchRequired, InsufficientFunds, NotAcceptable, TransactionNotFound
from wallet_api.requests import REQUIRED_IF_MATCH

_PROBLEM_EXAMPLE: Final = {
    "type": InsufficientFunds.type_uri(),
    "title": InsufficientFunds.title,
    "status": InsufficientFunds.status,
    "detail": "amount: wallet 0198c2a5-… has 20.00 EUR available, less than 30.00. Fund the wallet, or send a smaller"
    " amount.",
    "instance": "/wallets/0198c2a5-…/transfer",
    "code": InsufficientFunds.code,
}


def _problem(description: str) -> dict[str, Any]:
    return problem_documentation(description, _PROBLEM_EXAMPLE)


READ_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    **ACCESS_ERRORS,
    404: _problem("wallet-not-found, hold-not-found"),
    422: _problem("validation-error"),
    503: _problem("unavailable"),
}


def _example(problem: Problem, path: str) -> dict[str, Any]:
    return problem_documentation(problem.code, orjson.loads(problem.body(path)))


_UNKNOWN: Final = UUID("0198c2a5-0000-7000-8000-000000000001")
TRANSACTION_ERRORS: Final = {
    **READ_ERRORS,
    404: _example(TransactionNotFound(_UNKNOWN), f"/transactions/{_UNKNOWN}"),
}

STATEMENT_ERRORS: Final = {
    **READ_ERRORS,
    406: _example(NotAcceptable(["application/json", "text/csv", "application/xml"]), "/wallets/0198c2a5-…/statement"),
}

LIST_ERRORS: Final = {code: what for code, what in READ_ERRORS.items() if code != HTTPStatus.NOT_FOUND}

POST_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    **ACCESS_ERRORS,
    400: _problem(
        "bad-request: the body is not JSON, or a header of one value is sent twice; idempotency-key-required"
    ),
    404: _problem("wallet-not-found, hold-not-found, transaction-not-found"),
    409: _problem(
        "wallet-frozen, wallet-closed, wallet-not-frozen, wallet-not-closed, wallet-not-empty, external-id-taken, "
        "hold-not-open, hold-expired, not-reversible, already-reversed; "
        "with Retry-After: version-conflict, wallet-busy, idempotency-key-in-flight"
    ),
    412: _problem("version-mismatch"),
    413: _problem("content-too-large"),
    415: _problem("unsupported-media-type, unsupported-content-encoding"),
    422: _problem(
        "validation-error, insufficient-funds, balance-limit-exceeded, limit-exceeded, currency-mismatch, "
        "same-wallet, capture-exceeds-hold, reversal-exceeds-original, receiver-unavailable, "
        "idempotency-key-reused"
    ),
    503: _problem("unavailable, with Retry-After"),
}


def put_documentation(body: type[BaseModel], reply: type[BaseModel], status: int) -> dict[str, Any]:
    """Return a PUT route's keyword arguments: those of a POST route, a required header, and 428."""
    documentation = post_documentation(body, reply, status)
    refused = _example(IfMatchRequired(), "/wallets/0198c2a5-…/limits")
    return {
        **documentation,
        "responses": {**documentation["responses"], 428: refused},
        "openapi_extra": {**documentation["openapi_extra"], "parameters": [REQUIRED_IF_MATCH]},
    }


def post_documentation(body: type[BaseModel], reply: type[BaseModel], status: int) -> dict[str, Any]:
    """Return a POST route's keyword arguments: its reply, its errors and its body.

    A wallet that is created can't be missing or at another version yet.
    """
    is_operation = issubclass(body, OperationBody)
    left_out = set() if is_operation else {404, 412}
    responses = {code: what for code, what in POST_ERRORS.items() if code not in left_out}
    if is_operation and status != HTTPStatus.OK:
        responses[200] = {"description": "The preview.", "model": reply}
    return {
        "status_code": status,
        "response_model": reply,
        "responses": responses,
        "openapi_extra": body_documentation(body),
    }


def body_documentation(body: type[BaseModel]) -> dict[str, Any]:
    """Return a POST route's `openapi_extra`: the body that its endpoint reads."""
    schema = body.model_json_schema()
    content = {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return the schema with each definition in the place of its references: FastAPI adds no schemas of bodies."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    # The mapping of a discriminator names definitions too. `op` is a constant in each of the schemas without it.
    return {name: _inlined(item, definitions) for name, item in schema.items() if name != "discriminator"}
