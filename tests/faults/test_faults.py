"""Everything goes wrong at once, and every promise holds."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from faults.checkers import check, wait_until_drained, watch_bank
from faults.cluster import Cluster, running_cluster
from faults.driver import Driver
from faults.nemesis import Field, torment


@pytest.mark.timeout(1000)
async def test_every_promise_holds_whatever_goes_wrong(tmp_path: Path, seed: int, fault_seconds: float) -> None:
    print(f"FAULTS_SEED={seed} FAULTS_SECONDS={fault_seconds:.0f}", flush=True)
    async with running_cluster(tmp_path) as cluster:
        driver = Driver(cluster.first("wallet-api").url, seed)
        async with asyncio.timeout(60):
            await driver.prepare()
        on = Field(cluster)
        reads = await _run(on, driver, seed, fault_seconds)
        _keep_log(tmp_path / "operations.jsonl", driver)
        drained_seconds = await wait_until_drained(cluster)
        wrong = await check(on, driver)
        _tell(cluster, driver, on, reads, drained_seconds)
    assert not wrong, f"FAULTS_SEED={seed}: {len(wrong)} differences\n" + "\n".join(wrong[:40])


async def _run(on: Field, driver: Driver, seed: int, fault_seconds: float) -> int:
    """Let clients ask while things go wrong; heal; return how often the bank was read meanwhile."""
    healed, answered = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        clients = tasks.create_task(driver.run(healed))
        bank = tasks.create_task(watch_bank(on.cluster, driver, answered))
        await torment(on, seed, fault_seconds)
        await on.cluster.heal()
        healed.set()
        await clients
        answered.set()
        return await bank


def _keep_log(file: Path, driver: Driver) -> None:
    lines = (json.dumps({**asdict(operation), "reply": operation.reply.decode()}) for operation in driver.operations)
    file.write_text("\n".join(lines) + "\n")


def _tell(cluster: Cluster, driver: Driver, on: Field, reads: int, drained_seconds: float) -> None:
    outcomes = Counter(f"{operation.kind} {operation.outcome}" for operation in driver.operations)
    asked_again = sum(len(operation.attempts) > 1 for operation in driver.operations)
    print(f"{len(on.done)} faults; {len(driver.operations)} operations {dict(outcomes)}, {asked_again} asked again")
    print(f"answers {dict(driver.answers)}; the bank read {reads} times; drained in {drained_seconds:.1f} s")
    print(f"memory at most { ({name: f'{used / 1e6:.0f} MB' for name, used in cluster.memory_bytes_max.items()}) }")
    print("\n".join(cluster.endings))
