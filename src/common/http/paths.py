"""What a request's path says."""

from typing import Annotated
from urllib.parse import quote

import fastapi
from pydantic import AfterValidator
from starlette.requests import Request

from common import problems
from common.text import check_user_id


def path_of(request: Request) -> str:
    """Return the request's path, percent-encoded: a problem's `instance` is a URI reference."""
    return quote(request.scope["path"])


def path_user_id(
    request: Request,
    user_id: Annotated[
        str, fastapi.Path(description="1 to 64 visible characters, percent-encoded."), AfterValidator(check_user_id)
    ],
) -> str:
    """Return the user id in the path; a FastAPI dependency.

    Raises:
        RouteNotFound: a slash too many. One that belongs to an id is percent-encoded where it stands at an end.
    """
    if request.scope["path"].endswith("\n") or b"//" in (raw := request.scope["raw_path"]) or raw.endswith(b"/"):
        raise problems.RouteNotFound("user_id: a slash at its end is written %2F.")
    return user_id
