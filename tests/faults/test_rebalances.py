"""Repeated rebalances, under each of Kafka's two group protocols."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faults.attack import attacked
from faults.cluster import running_cluster
from faults.nemesis import is_at_work


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_consumers_that_come_and_go_all_the_time_break_no_promise(
    tmp_path: Path, seed: int, eventually: Callable[..., Awaitable[Any]], protocol: str
) -> None:
    rng = random.Random(seed)
    async with (
        running_cluster(tmp_path, CONSUMER_GROUP_PROTOCOL=protocol) as cluster,
        attacked(cluster, seed) as on,
    ):
        for _ in range(3):
            guests = [cluster.add("history-consumer", CONSUMER_GROUP_PROTOCOL=protocol) for _ in range(2)]
            await asyncio.gather(*(eventually(partial(is_at_work, guest), 90) for guest in guests))
            await asyncio.sleep(rng.uniform(0, 1))
            for guest in guests:
                await cluster.end(guest, rng.choice([signal.SIGKILL, signal.SIGTERM]))
                cluster.processes.remove(guest)
        on.done += ["rebalances"]
