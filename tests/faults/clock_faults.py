"""The clock of a process jumps by an hour while it runs (libfaketime). Its monotonic clock does not."""

import asyncio
import importlib.util
import platform
import random
import signal
from pathlib import Path
from typing import Final

from faults.field import Act, Fault, Field
from support.processes import COMMANDS

OFFSETS: Final = ("+3600", "-3600")
"""Seconds, as libfaketime reads them from its file."""


def library() -> Path | None:
    """Return libfaketime, or None where the wheel has none for this machine."""
    # Found without importing the package, whose import has side effects.
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or spec.origin is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    found = Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return found if found.exists() else None


def environment(preloaded: Path, clock: Path) -> dict[str, str]:
    """Return the variables by which a process uses the file's clock, at most a second later."""
    return {
        "LD_PRELOAD": str(preloaded),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


async def _move_clock(on: Field, fault: Fault) -> None:
    """A process whose clock jumps an hour ahead and back, or back and ahead, while it works."""
    rng, preloaded = random.Random(fault.choice), library()
    assert preloaded is not None
    process = on.cluster.first(rng.choice(list(COMMANDS)))
    clock = on.cluster.directory / "clock"
    clock.write_text("+0")
    await on.cluster.end(process, signal.SIGTERM)
    on.cluster.start(process, **environment(preloaded, clock))
    for offset in rng.sample(OFFSETS, 2):
        await asyncio.sleep(2 + fault.seconds)
        clock.write_text(offset)
    await asyncio.sleep(2 + fault.seconds)
    await on.cluster.end(process, signal.SIGKILL)
    on.cluster.start(process)


CLOCK_FAULTS: Final[dict[str, Act]] = {"move a clock": _move_clock} if library() else {}
