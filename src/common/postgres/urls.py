"""The form of PostgreSQL URLs that settings take."""

from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_URL_PARAMETERS: Final = frozenset({"host", "port", "passfile", "ssl", "target_session_attrs"})


def asyncpg_url(url: str, *, on_standby: bool = False) -> URL:
    """Turn a `postgresql://` URL into the one SQLAlchemy opens with asyncpg.

    Args:
        url: of a setting.
        on_standby: whether of several hosts any one will do, unless the URL has `target_session_attrs`.

    Raises:
        ValueError: it isn't a PostgreSQL URL, or has a parameter that isn't known.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("must look like postgresql://user:password@host:5432/database") from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("must start with postgresql://")
    if unknown := sorted(parsed.query.keys() - _URL_PARAMETERS):
        raise ValueError(f"has the parameter {unknown[0]}; known are {', '.join(sorted(_URL_PARAMETERS))}")
    defaults = {"target_session_attrs": "any"} if on_standby else {}
    return parsed.set(drivername="postgresql+asyncpg", query={**defaults, **parsed.query})
