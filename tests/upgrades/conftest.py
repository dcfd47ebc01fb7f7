"""The last release, whose wheel is kept in this folder: `make last-release` replaces it when a release is made."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import Pipeline, Process
from support.roles import Roles

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def last_release_wheel() -> Path:
    (wheel,) = FOLDER.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def last_release(last_release_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variable with which Python runs the last release's code, and the libraries of this environment."""
    directory = tmp_path_factory.mktemp("last-release")
    with zipfile.ZipFile(last_release_wheel) as wheel:
        wheel.extractall(directory)
    return {"PYTHONPATH": str(directory)}


@pytest.fixture
async def pipeline(
    empty_database_url: str,
    kafka_bootstrap_servers: str,
    topic: str,
    roles: Roles,
    tmp_path: Path,
    eventually: Callable[..., Awaitable[Any]],
) -> AsyncIterator[Pipeline]:
    environment = {
        "DATABASE_URL": empty_database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "CONSUMER_GROUP": f"group-{topic}",
        **roles.environment,
    }
    pipeline = Pipeline(environment, roles, tmp_path, eventually)
    started: list[Process] = pipeline.processes
    yield pipeline
    for process in started:
        if process.is_running:
            await asyncio.to_thread(process.stop)
