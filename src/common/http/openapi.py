"""The errors in the OpenAPI documents (RFC 9457)."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from common.problems import MEDIA_TYPE

_ERRORS_FROM: Final = "4"


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


def only_problem_documents(app: FastAPI) -> None:
    """Remove `application/json`, which FastAPI adds with the model, from the errors that the app documents."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for route in document["paths"].values():
            for operation in route.values():
                for status, response in operation["responses"].items():
                    if status >= _ERRORS_FROM:
                        response["content"].pop("application/json", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
