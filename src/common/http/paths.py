"""The ids in a request's path, and the path itself."""

from typing import Annotated
from urllib.parse import quote
from uuid import UUID

import fastapi
from pydantic import AfterValidator, BeforeValidator
from starlette.requests import Request

from common import problems
from common.identifiers import parse_uuid
from common.text import check_user_id

PathUuid = Annotated[UUID, BeforeValidator(parse_uuid)]
"""A UUID in the path; a FastAPI parameter."""


def path_of(request: Request) -> str:
    """Return the request's path, percent-encoded: a problem's `instance` is a URI reference."""
    return quote(request.scope["path"])


def path_uuid(request: Request, name: str) -> UUID:
    """Return a UUID in the path of a plain route.

    Raises:
        ValidationProblem: it isn't one.
    """
    try:
        return parse_uuid(request.path_params[name])
    except ValueError as error:
        raise problems.ValidationProblem.of(name, str(error)) from error


def path_user_id(
    request: Request,
    user_id: Annotated[
        str, fastapi.Path(description="1 to 64 visible characters, percent-encoded."), AfterValidator(check_user_id)
    ],
) -> str:
    """Return the user id in the path; a FastAPI dependency.

    Raises:
        RouteNotFound: a slash too many. A slash at an end of the id is percent-encoded.
    """
    if request.scope["path"].endswith("\n") or b"//" in (raw := request.scope["raw_path"]) or raw.endswith(b"/"):
        raise problems.RouteNotFound("user_id: send a slash at its start or end as %2F.")
    return user_id


PathUserId = Annotated[str, fastapi.Depends(path_user_id)]
"""A user id in the path; a FastAPI parameter."""
