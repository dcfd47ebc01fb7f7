"""HTTP load by wrk: as fast as replies come, or on a schedule that waits for none.

On a schedule each request has its own time, and another connection takes it when one is still waiting for its
reply: so a server that stalls is asked on all the same, and its stall is seen (no coordinated omission).
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import orjson

SCRIPT: Final = Path(__file__).with_name("requests.lua")
RATE_KEPT_MIN: Final = 0.95
"""A schedule is kept if that much of it was answered."""

_seeds = count(1)

Operation = Literal["transfer", "fund"]


class MissingGeneratorError(Exception):
    """There is no wrk on this machine."""


class LoadError(Exception):
    """The load was not what it should have been: its figures are worth nothing."""


@dataclass(frozen=True)
class Load:
    """What to ask for.

    Attributes:
        operation: the route.
        ids: the wallets, one of which is drawn for each request.
        hot: only the first one sends, or is funded.
    """

    operation: Operation
    ids: Path
    hot: bool = False


@dataclass(frozen=True)
class Answers:
    """What came of it.

    Attributes:
        seconds: how long it was.
        done: replies with 200.
        refused: other replies, by status.
        latency_ms: by percentile.
        late_ms_max: how long a request waited for a free connection at most, when its time had come.
    """

    seconds: float
    done: int
    refused: dict[str, int]
    latency_ms: dict[str, float]
    late_ms_max: float

    @property
    def rate(self) -> float:
        """What was done in a second."""
        return self.done / self.seconds


def require_wrk() -> None:
    """Check that there is a wrk.

    Raises:
        MissingGeneratorError: says how to get it.
    """
    if shutil.which("wrk") is None:
        raise MissingGeneratorError(
            "wrk sends the HTTP load and isn't there: install it by the system's package manager"
            " (apt-get install wrk, dnf install wrk, brew install wrk), and try again"
        )


def ids_file(directory: Path, ids: Sequence[Any]) -> Path:
    """Write wallet ids for a load."""
    with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".ids", delete=False) as file:
        file.writelines(f"{wallet_id}\n" for wallet_id in ids)
    return Path(file.name)


def send(url: str, load: Load, connections: int, seconds: float, rate: float = 0) -> Answers:
    """Send requests for so long.

    Args:
        url: of the server.
        load: what to ask for.
        connections: kept open.
        seconds: rounded to whole ones.
        rate: requests a second; 0 sends the next as soon as a reply is there.

    Raises:
        LoadError: connections broke, or the schedule wasn't kept.
    """
    arguments = [load.operation, str(load.ids), "one" if load.hot else "all", str(rate), str(next(_seeds))]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", str(SCRIPT), url]
    done = subprocess.run([*command, "--", *arguments], capture_output=True, text=True, check=False)
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not result:
        raise LoadError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    answers = read(result[0].removeprefix("RESULT "))
    if rate and answers.rate < rate * RATE_KEPT_MIN:
        refused = f"; refused: {answers.refused}" if answers.refused else ""
        raise LoadError(f"{rate:,.0f} transfers a second were to be done, {answers.rate:,.0f} were{refused}")
    return answers


def read(line: str) -> Answers:
    """Return what wrk's script printed.

    Raises:
        LoadError: connections broke.
    """
    found = orjson.loads(line)
    statuses: dict[str, int] = found["statuses"]
    done = statuses.pop("200", 0)
    if found["broken"]:
        raise LoadError(f"{found['broken']} requests had no reply, {done} were done, refused: {statuses or 'none'}")
    return Answers(found["seconds"], done, statuses, found["latency_ms"], found["late_ms_max"])
