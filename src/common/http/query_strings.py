"""The query of a request: each parameter once, but for those that take a list."""

from collections import Counter
from collections.abc import Collection
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant

from common.problems import ValidationProblem


def list_parameters(route: Dependant) -> frozenset[str]:
    """Return the names of a route's query parameters that take a list, each value in a parameter of its own."""
    own = {field.alias for field in route.query_params if _takes_list(field.field_info.annotation)}
    return frozenset(own).union(*(list_parameters(each) for each in route.dependencies))


def repeated_parameter(query: bytes, lists: Collection[str]) -> ValidationProblem | None:
    """Return the problem of a query that has a parameter twice; of two values, a client can't know which counts.

    Args:
        query: as it was sent, percent-encoded.
        lists: the names that may be repeated.
    """
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
    if len(set(names)) == len(names):
        return None
    repeated = (name for name, count in Counter(names).items() if count > 1 and name not in lists)
    name = next(repeated, None)
    return None if name is None else ValidationProblem.of(name, "must be sent once")


def _takes_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_takes_list(each) for each in get_args(annotation))
