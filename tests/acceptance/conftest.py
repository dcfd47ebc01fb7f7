"""The four processes on the test's own database and topic."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import COMMANDS, Pipeline


@pytest.fixture
def service_environment(
    database_url: str, kafka_bootstrap_servers: str, topic: str, session_timeout_seconds: float
) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "CONSUMER_GROUP": f"group-{topic}",
        # A killed consumer's partitions shall not be kept for it for long.
        "CONSUMER_SESSION_TIMEOUT_SECONDS": str(session_timeout_seconds),
    }


@pytest.fixture
async def pipeline(
    service_environment: dict[str, str], tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> AsyncIterator[Pipeline]:
    """One of each process."""
    pipeline = Pipeline(service_environment, tmp_path, eventually)
    try:
        await asyncio.gather(*map(pipeline.add, COMMANDS))
        yield pipeline
    finally:
        for process in _running(pipeline):
            process.send_signal(signal.SIGTERM)
        for process in _running(pipeline):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _running(pipeline: Pipeline) -> "Iterator[subprocess.Popen[bytes]]":
    for process in pipeline.processes:
        if process.child is not None and process.child.poll() is None:
            yield process.child
