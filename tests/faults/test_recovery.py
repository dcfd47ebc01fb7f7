"""One fault at a time, where the suite found that a process does not recover by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from faults.attack import attacked
from faults.cluster import running_cluster

_RECOVERED_SECONDS_MAX = 25.0


@pytest.mark.timeout(240)
async def test_the_api_answers_again_after_a_firewall_forgot_its_database_connections(
    tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with running_cluster(tmp_path) as cluster, attacked(cluster, 1) as on:
        answers = on.driver.answers

        async def busy() -> bool:
            return answers["200"] > 100

        async def recovered() -> bool:
            """Whether clients are told what they want to know for a second, and nothing else."""
            before = answers.copy()
            await asyncio.sleep(1)
            return set(answers - before) <= {"200", "201", "422"} and answers["200"] > before["200"]

        await eventually(busy)
        cluster.postgres_link.silence()
        await asyncio.sleep(1)
        cluster.postgres_link.heal(forget=True)
        await eventually(recovered, _RECOVERED_SECONDS_MAX)
