"""Python's garbage collector, set for processes that keep much and make little anew."""

import gc
from typing import Final

_GC_THRESHOLD: Final = 50_000


def tune_garbage_collector() -> None:
    """Leave out what was imported, and look for cycles less often.

    A batch is thousands of tuples without a cycle among them: looking at each 700 of them took 6 % of a relay's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
