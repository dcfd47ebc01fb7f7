"""Silent connections to every process, and requests that are never finished."""

import asyncio
import random
import resource
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import psutil

from faults.field import Act, Fault, Field
from support.processes import COMMANDS, Process
from support.proxy import HOST
from walletctl.stack.readiness import HttpProbe

CONNECTIONS: Final = 120
"""To each process: more than a worker's limit, and fewer than may wait to be accepted with 1,024 open files."""
CLOSED_SECONDS_MAX: Final = 20.0
"""A process closes such a connection after 10 s."""
FILES_MIN: Final = 4096

_BEGINNINGS: Final = (
    b"",
    b"POST /wallets HTTP/1.1\r\nHost: wallet\r\nContent-Le",
    b'POST /wallets HTTP/1.1\r\nHost: wallet\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"user_id',
)


async def _say_nothing(on: Field, fault: Fault) -> None:
    """Many silent connections: each process closes them, and answers other requests meanwhile."""
    rng = random.Random(fault.choice)
    _allow_files()
    crowds = [_crowd(on.cluster.first(role), rng.choices(_BEGINNINGS, k=CONNECTIONS)) for role in COMMANDS]
    for violations in await asyncio.gather(*crowds):
        on.driver.violations += violations


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_MIN <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MIN, hard))


async def _crowd(process: Process, beginnings: Sequence[bytes]) -> list[str]:
    """Open the connections and wait until they are closed; return what is wrong, or nothing if a fault interfered."""
    port, child, lives, undisturbed = urlsplit(process.url).port, process.child, False, True
    assert port is not None
    made: list[int] = []
    waiting = {asyncio.create_task(_until_closed(port, beginning, made)) for beginning in beginnings}
    deadline = asyncio.get_running_loop().time() + CLOSED_SECONDS_MAX
    try:
        while waiting and undisturbed and asyncio.get_running_loop().time() < deadline:
            _, waiting = await asyncio.wait(waiting, timeout=0.5)
            lives = lives or await HttpProbe(f"{process.url}/live").ready()
            undisturbed = process.child is child and _works(process)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    # A process that was just started does not listen yet, and has no silent connections.
    if not undisturbed or not made:
        return []
    found = [] if lives else [f"{process.name} did not answer /live beside silent connections"]
    if waiting:
        found.append(f"{process.name} kept {len(waiting)} silent connections for {CLOSED_SECONDS_MAX:.0f} s")
    return found


def _works(process: Process) -> bool:
    """Whether the process runs and is not frozen."""
    assert process.child is not None
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.child.pid).status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    return False


async def _until_closed(port: int, beginning: bytes, made: list[int]) -> None:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(HOST, port)
        made.append(port)
        try:
            writer.write(beginning)
            await reader.read()
        finally:
            writer.transport.abort()


SILENCE_FAULTS: Final[dict[str, Act]] = {"say nothing": _say_nothing}
