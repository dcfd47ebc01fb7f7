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


def in_steps(advance: Advance, step: float) -> Advance:
    """Return a function that passes its amounts on in sums of at least `step`: to show each item takes too long."""
    held = 0.0

    def advance_later(more: float) -> None:
        nonlocal held
        held += more
        if held >= step:
            advance(held)
            held = 0.0

    return advance_later
