"""Single faults that the short run may not reach: every promise holds, and no process ends."""

import asyncio
from pathlib import Path

import pytest

from faults.attack import attacked
from faults.checkers import wait_until_ready
from faults.cluster import running_cluster
from faults.field import Fault
from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS

SECONDS = 1.0
CHOICES = {"only read": 2, "lock out": 3, "transact": 3, "say nothing": 1, "acknowledge slowly": 2}
"""How often each fault happens: once in each of its variants."""


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", CHOICES)
async def test_every_promise_holds_when_one_thing_goes_wrong(tmp_path: Path, name: str) -> None:
    act = {**PROCESS_FAULTS, **SERVER_FAULTS}[name]
    async with running_cluster(tmp_path) as cluster:
        async with attacked(cluster, seed=1) as on:
            # Processes that are starting are the subject of another fault.
            await asyncio.wait_for(wait_until_ready(on), 60)
            for choice in range(CHOICES[name]):
                on.done.append(name)
                await act(on, Fault(name, SECONDS, 0.0, choice))
        assert cluster.endings == []
