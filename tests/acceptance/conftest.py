"""The four processes on a database and a topic that the tests of one module share."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from support.databases import Databases
from support.processes import COMMANDS, Pipeline, Process
from support.roles import Roles
from support.topics import fresh_topic


@pytest.fixture(scope="module")
def service_environment(
    databases: Databases, kafka_bootstrap_servers: str, kafka_admin: AdminClient, session_timeout_seconds: float
) -> Iterator[dict[str, str]]:
    url = databases.clone()
    with fresh_topic(kafka_admin) as topic:
        yield {
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "CONSUMER_GROUP": f"group-{topic}",
            # A killed consumer keeps its partitions for this long.
            "CONSUMER_SESSION_TIMEOUT_SECONDS": str(session_timeout_seconds),
        }
    databases.drop(url)


@pytest.fixture(scope="module")
def pipeline_roles(roles: Roles) -> Roles:
    """The roles as which the processes log in."""
    return roles


@pytest.fixture(scope="module")
def running_pipeline(
    service_environment: dict[str, str],
    pipeline_roles: Roles,
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., Awaitable[Any]],
) -> Iterator[Pipeline]:
    """One of each process."""
    pipeline = Pipeline(service_environment, pipeline_roles, tmp_path_factory.mktemp("pipeline"), eventually)

    async def start() -> None:
        await asyncio.gather(*map(pipeline.add, COMMANDS))

    try:
        asyncio.run(start())
        yield pipeline
    finally:
        _stop(pipeline.processes)


@pytest.fixture
async def pipeline(running_pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    """One of each process, all of them ready. Processes that the test adds end with it."""
    for process in running_pipeline.processes:
        if not process.is_running:
            process.start()
    await asyncio.gather(*map(running_pipeline.ready, running_pipeline.processes))
    yield running_pipeline
    _stop(running_pipeline.processes[len(COMMANDS) :])
    del running_pipeline.processes[len(COMMANDS) :]


def _stop(processes: list[Process]) -> None:
    """End the processes; kill those that do not end on SIGTERM."""
    running = [process.child for process in processes if process.child and process.is_running]
    for child in running:
        child.send_signal(signal.SIGTERM)
    for child in running:
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
