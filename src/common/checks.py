"""The states of the checks that `/ready` shows."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

Checks = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the state of each dependency: `"ok"`, or what is wrong with it."""

WARNING: Final = "warning: "
"""Begins the state of a check that needs attention and leaves the process ready."""


def are_ready(states: Iterable[str]) -> bool:
    """Whether a process whose checks have these states counts as ready."""
    return all(state == "ok" or state.startswith(WARNING) for state in states)
