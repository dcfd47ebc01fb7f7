"""How a long operation reports its progress. The caller decides how to show it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[float], None]
"""Takes how much more is done."""

Progress = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Takes a description and the total, or None where that is unknown; the work runs in the block."""


@contextmanager
def no_progress(_description: str, _total: float | None) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _done: None
