"""Clients that send requests during faults, and the checks afterwards."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from faults.checkers import check, monitor, wait_until_drained, wait_until_ready
from faults.cluster import Cluster
from faults.driver import Driver
from faults.field import Field


@asynccontextmanager
async def attacked(cluster: Cluster, seed: int) -> AsyncIterator[Field]:
    """Run clients during the block, in which faults happen; then heal, wait until the backlog drained, and check.

    Raises:
        AssertionError: a promise was broken.
    """
    on = Field(cluster, Driver(cluster.first("wallet-api").url, seed=seed))
    async with asyncio.timeout(60):
        await on.driver.prepare()
    healed, answered = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        clients = tasks.create_task(on.driver.run(healed))
        monitoring = tasks.create_task(monitor(on, answered))
        yield on
        await cluster.heal()
        healed.set()
        await clients
        answered.set()
    _keep_log(on)
    wrong = await wait_until_drained(on)
    wrong += await wait_until_ready(on)
    wrong += await check(on)
    wrong += on.cluster.overdue
    _tell(on, monitoring.result())
    assert not wrong, f"seed {seed}: {len(wrong)} differences\n" + "\n".join(wrong[:40])


def _keep_log(on: Field) -> None:
    operations = (json.dumps({**asdict(done), "reply": done.reply.decode()}) for done in on.driver.operations)
    (on.cluster.directory / "operations.jsonl").write_text("\n".join(operations) + "\n")


def _tell(on: Field, reads: int) -> None:
    driver, cluster = on.driver, on.cluster
    outcomes = Counter(f"{operation.kind} {operation.outcome}" for operation in driver.operations)
    asked_again = sum(len(operation.attempts) > 1 for operation in driver.operations)
    print(f"{len(on.done)} faults; {len(driver.operations)} operations {dict(outcomes)}, {asked_again} asked again")
    print(f"answers {dict(driver.answers)}; the balances read {reads} times; drained in {on.drained_seconds:.1f} s")
    print(f"memory at most { ({name: f'{used / 1e6:.0f} MB' for name, used in cluster.memory_bytes_max.items()}) }")
    print(f"open files at most {cluster.files_max}")
    print("\n".join(cluster.endings))
