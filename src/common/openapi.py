"""What the OpenAPI documents say of errors (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

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


def problem_documentation(description: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route's `responses` entry for one status: the codes it may have, and an example."""
    return {
        "model": ProblemOut,
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}, "example": dict(example)}},
    }
