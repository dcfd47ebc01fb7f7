"""Silent connections do not use up a process's open files."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.ports import free_port
from support.processes import COMMANDS, http_client

FILES_MAX = 1024
SILENT = 1100
GROUP = 100
"""Fewer than may wait to be accepted. With SYN cookies, the kernel forgets connections beyond that."""


@pytest.fixture
def many_files() -> None:
    """Raise the limit of open files, so that the test can hold the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SILENT
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"needs {wanted} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def process(name: str, log_file: Path) -> Iterator[str]:
    """Start the process with few open files and without its servers; yield its address."""
    port, nowhere = str(free_port()), f"127.0.0.1:{free_port()}"
    environment = {
        "DATABASE_URL": f"postgresql://postgres@{nowhere}/wallet",
        "KAFKA_BOOTSTRAP_SERVERS": nowhere,
        # On a busy machine the first connections would end by the deadline before the last one is open.
        "HEAD_DEADLINE_SECONDS": "300",
        **dict.fromkeys(("WALLET_API_PORT", "HISTORY_API_PORT", "RELAY_OPS_PORT", "CONSUMER_OPS_PORT"), port),
    }
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                f'ulimit -n {FILES_MAX}; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "walletctl",
                *COMMANDS[name],
            ],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("name", ["wallet-api", "history-api", "outbox-relay"])
async def test_more_silent_connections_than_open_files_leave_the_probes_and_the_metrics_alone(
    name: str, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async def answer(path: str) -> httpx.Response | None:
        async with http_client(url) as client:
            try:
                return await client.get(path)
            except httpx.TransportError:
                return None

    with process(name, tmp_path / "log") as url:
        assert await eventually(lambda: answer("/live"), 40)
        port = int(url.rpartition(":")[2])
        silent, answers = [], []
        for _ in range(SILENT // GROUP):
            silent += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(GROUP)))
            # Connections are accepted in their order: with this answer, the whole group has been.
            answers.append(await answer("/live"))
        metrics = await answer("/metrics")
        for _, writer in silent:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for _, writer in silent), return_exceptions=True)
        assert [reply and reply.status_code for reply in answers] == [200] * len(answers)
        assert metrics is not None
        assert 'http_connections_ended_total{reason="gave-way"}' in metrics.text
        assert '"connections_ended"' in (tmp_path / "log").read_text()
