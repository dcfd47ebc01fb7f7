"""Many faults at once, and every promise holds."""

from pathlib import Path

import pytest

from faults.attack import attacked
from faults.cluster import running_cluster
from faults.schedule import run_schedules


@pytest.mark.timeout(1000)
async def test_every_promise_holds_whatever_goes_wrong(
    tmp_path: Path, seed: int, fault_seconds: float, fault_names: list[str]
) -> None:
    print(f"FAULTS_SEED={seed} FAULTS_SECONDS={fault_seconds:.0f}", flush=True)
    async with running_cluster(tmp_path) as cluster, attacked(cluster, seed) as on:
        await run_schedules(on, seed, fault_seconds, fault_names)
