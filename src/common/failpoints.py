"""Failpoints: named moments at which a test makes a process die, hang or fail.

`FAILPOINTS="relay.produced_not_settled=kill;consumer.polled=pause:2.5@3"` arms two of them when a process starts:

| action | what happens |
| --- | --- |
| `kill` | the process gets SIGKILL |
| `stop` | the process gets SIGSTOP: it hangs until it gets SIGCONT |
| `error` | FailpointError is raised |
| `pause:SECONDS` | the thread and its event loop sleep, as in a process that is swapped out |

`@N` means at the N-th hit only, counted from 1 in each process; without it, at each hit. If `FAILPOINTS` is unset, a
hit only looks at an empty dictionary.
"""

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal, cast

NAMES: Final[Mapping[str, str]] = {
    "api.claimed": "a batch's idempotency keys are claimed; no wallet is locked yet",
    "api.locked": "transfers' wallets are locked (funds' are read); nothing is written yet",
    "api.before_commit": "everything is written, the replies too; not committed",
    "api.committed": "committed; no client has a reply yet",
    "relay.claimed": "lanes are locked and their rows read; nothing is produced yet",
    "relay.produced_not_settled": "every delivery report has come; no row is settled",
    "relay.settled_not_committed": "the rows are settled; not committed",
    "relay.committed": "committed; nothing is counted yet",
    "consumer.polled": "records are read; nothing is written",
    "consumer.applied_not_committed": "rows and positions are written; not committed",
    "consumer.committed_not_noted": "committed; the offset is not committed to Kafka",
}
"""Every failpoint, and the state in which it is hit."""

_ENTRY: Final = re.compile(r"([a-z._]+)=(?:(kill|stop|error)|pause:(\d+(?:\.\d+)?))(?:@([1-9]\d*))?")


class FailpointError(Exception):
    """Raised by the action `error`."""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """The action at one failpoint; `only_at` is the hit at which it acts, None for each hit."""

    action: Literal["kill", "stop", "error", "pause"]
    seconds: float = 0.0
    only_at: int | None = None


def parse(text: str) -> dict[str, Failpoint]:
    """Return the failpoints that a value of `FAILPOINTS` arms, by name.

    Raises:
        ValueError: an entry can't be read, or names no failpoint.
    """
    found = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"FAILPOINTS: {entry!r} isn't NAME=kill|stop|error|pause:SECONDS, with @N or without")
        name, action, seconds, only_at = match.groups()
        if name not in NAMES:
            raise ValueError(f"FAILPOINTS: no failpoint {name!r}; there are {', '.join(NAMES)}")
        chosen = cast("Literal['kill', 'stop', 'error', 'pause']", action or "pause")
        found[name] = Failpoint(chosen, float(seconds or 0), int(only_at) if only_at else None)
    return found


_armed: Final = parse(os.environ.get("FAILPOINTS", ""))
_hits: Final = {name: count(1) for name in NAMES}


def hit(name: str) -> None:
    """Mark the failpoint as hit: its action happens if it is armed.

    Raises:
        FailpointError: the action is `error`.
    """
    if _armed and name in _armed:
        _act(name, _armed[name])


def _act(name: str, failpoint: Failpoint) -> None:
    if failpoint.only_at not in (None, next(_hits[name])):
        return
    match failpoint.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "error":
            raise FailpointError(name)
        case "pause":
            time.sleep(failpoint.seconds)
