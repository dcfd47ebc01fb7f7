"""HTTP load by wrk: as fast as replies come, or on a schedule that waits for no reply.

On a schedule each request has its own time. If a connection still waits for its reply, another one sends the request.
So a server that stalls still gets requests, and the stall is measured (no coordinated omission).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import orjson

SCRIPT: Final = Path(__file__).with_name("requests.lua")
RATE_KEPT_MIN: Final = 0.95
"""The share of a schedule that must be answered."""

_seeds = count(1)

Operation = Literal["transfer", "fund", "mixed", "batch", "atomic"]
"""What the requests do; mixed: half of them transfer, half fund; batch and atomic: each has 100 transfers."""

BATCH_OPERATIONS: Final = 100


class MissingGeneratorError(Exception):
    """wrk isn't installed."""


class LoadError(Exception):
    """The load failed: its figures are invalid."""


@dataclass(frozen=True)
class Load:
    """The requests of a load.

    Attributes:
        operation: what each request does.
        ids: the file of wallets, one of which is drawn for each request.
        hot: whether only the first wallet sends, or is funded.
        api_key: sent with each request.
    """

    operation: Operation
    ids: Path
    hot: bool = False
    api_key: str = field(default="", repr=False)

    @property
    def movements(self) -> int:
        """The movements of a request."""
        return BATCH_OPERATIONS if self.operation in {"batch", "atomic"} else 1

    @property
    def movements_a_key(self) -> int:
        """The movements that share an idempotency key."""
        return BATCH_OPERATIONS if self.operation == "atomic" else 1


@dataclass(frozen=True)
class Answers:
    """The replies to a load.

    Attributes:
        seconds: the load's length.
        done: the number of replies with 200; of a batch, of operations with 200.
        refused: the numbers of others, by status.
        latency_ms: the latency, by percentile.
        late_ms_max: the longest time that a due request waited for a free connection.
    """

    seconds: float
    done: int
    refused: dict[str, int]
    latency_ms: dict[str, float]
    late_ms_max: float

    @property
    def rate(self) -> float:
        """Replies with 200 a second."""
        return self.done / self.seconds


def require_wrk() -> None:
    """Check that wrk is installed.

    Raises:
        MissingGeneratorError: it isn't; the message says how to install it.
    """
    if shutil.which("wrk") is None:
        raise MissingGeneratorError(
            "wrk, which sends the HTTP load, isn't installed. Install it with the system's package manager"
            " (apt-get install wrk, dnf install wrk, brew install wrk) and run this again"
        )


def ids_file(directory: Path, ids: Sequence[Any]) -> Path:
    """Write a load's wallet ids to a file in `directory`."""
    with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".ids", delete=False) as file:
        file.writelines(f"{wallet_id}\n" for wallet_id in ids)
    return Path(file.name)


def send(url: str, load: Load, connections: int, seconds: float, rate: float = 0) -> Answers:
    """Send requests for so many seconds.

    Args:
        url: the server's URL.
        load: the requests.
        connections: the number of connections.
        seconds: rounded to whole seconds.
        rate: requests a second; 0 sends the next as soon as a reply comes.

    Raises:
        LoadError: connections broke, or the schedule wasn't kept.
    """
    arguments = [load.operation, str(load.ids), "one" if load.hot else "all", str(rate), str(next(_seeds))]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", str(SCRIPT), url]
    # Every user of the machine can see a process's arguments, and only its owner its environment.
    environment = {**os.environ, "WALLET_API_KEY": load.api_key}
    done = subprocess.run([*command, "--", *arguments], env=environment, capture_output=True, text=True, check=False)
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not result:
        raise LoadError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    answers = read(result[0].removeprefix("RESULT "))
    if rate and answers.rate < rate * RATE_KEPT_MIN:
        refused = f"; refused: {answers.refused}" if answers.refused else ""
        raise LoadError(f"{rate:,.0f} transfers a second were scheduled, {answers.rate:,.0f} were done{refused}")
    return answers


def read(line: str) -> Answers:
    """Parse the line that wrk's script printed.

    Raises:
        LoadError: connections broke.
    """
    found = orjson.loads(line)
    statuses: dict[str, int] = found["statuses"]
    done = statuses.pop("200", 0)
    if found["broken"]:
        raise LoadError(f"{found['broken']} requests had no reply, {done} were done, refused: {statuses or 'none'}")
    return Answers(found["seconds"], done, statuses, found["latency_ms"], found["late_ms_max"])
