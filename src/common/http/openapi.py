"""The errors (RFC 9457) and the credentials (RFC 6750) in the OpenAPI documents."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from common.problems import MEDIA_TYPE, Unauthorized

_ERRORS_FROM: Final = "4"
_SCHEME: Final = "bearer"
_SCHEMES: Final = {_SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key."}}
_REFUSALS: Final = {"401": "unauthorized, with WWW-Authenticate", "403": "forbidden: the caller lacks the scope"}
_EXAMPLE: Final = {
    "type": Unauthorized.type_uri(),
    "title": Unauthorized.title,
    "status": Unauthorized.status,
    "detail": Unauthorized.missing().detail,
    "instance": "/…",
    "code": Unauthorized.code,
}


class FieldError(BaseModel):
    """One invalid field."""

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


def problem_documentation(description: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route's `responses` entry for one status: the codes it may have, and an example."""
    return {
        "model": ProblemOut,
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}, "example": dict(example)}},
    }


def complete_document(app: FastAPI) -> None:
    """Complete what FastAPI knows of the routes: each needs credentials, and each error is a problem document.

    FastAPI adds `application/json` with the model to the errors that the app documents. That is removed.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"] = _SCHEMES
        for route in document["paths"].values():
            for operation in route.values():
                operation["security"] = [{_SCHEME: []}]
                responses = operation["responses"]
                for status, description in _REFUSALS.items():
                    refusal = problem_documentation(description, _EXAMPLE)
                    responses.setdefault(status, {key: refusal[key] for key in ("description", "content")})
                for status, response in responses.items():
                    if status >= _ERRORS_FROM:
                        response["content"].pop("application/json", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
