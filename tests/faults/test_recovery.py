"""One fault at a time, where the suite found that a process does not recover by itself."""

import asyncio
from pathlib import Path

import pytest

from faults.checkers import wait_until_drained
from faults.cluster import running_cluster
from faults.driver import Driver

_RECOVERED_SECONDS_MAX = 25.0


@pytest.mark.timeout(240)
async def test_the_api_answers_again_after_a_firewall_forgot_its_database_connections(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        driver = Driver(cluster.first("wallet-api").url, 1)
        async with asyncio.timeout(60):
            await driver.prepare()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            busy = tasks.create_task(driver.run(stop))
            await asyncio.sleep(3)
            cluster.postgres_link.silence()
            await asyncio.sleep(1)
            cluster.postgres_link.heal(forget=True)
            await asyncio.sleep(_RECOVERED_SECONDS_MAX)
            answered = driver.answers.copy()
            await asyncio.sleep(5)
            again = driver.answers - answered
            stop.set()
            if not again["200"]:
                busy.cancel()
        print(dict(answered), dict(again), cluster.endings)
        assert again["200"] > 0
        await wait_until_drained(cluster)
