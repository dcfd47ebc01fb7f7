"""How long work tells how far it is, without knowing who shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[float], None]
"""Takes how much more has been done."""

Progress = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Takes a description and the total, None where that isn't known; the work goes on inside the block."""


@contextmanager
def no_progress(_description: str, _total: float | None) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _done: None
