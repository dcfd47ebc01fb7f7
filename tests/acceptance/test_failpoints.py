"""Each process dies at each of its failpoints, comes back, and every promise holds."""

import asyncio
import signal
from decimal import Decimal

import pytest

from acceptance_pipeline import Pipeline, Process
from acceptance_traffic import assert_verified, create_wallets, transfer_in_a_ring, wait_until_complete
from common.failpoints import NAMES

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("victim", "prefix"), [("wallet-api", "api."), ("outbox-relay", "relay."), ("history-consumer", "consumer.")]
)
async def test_nothing_is_lost_or_doubled_when_a_process_dies_at_any_of_its_failpoints(
    pipeline: Pipeline, victim: str, prefix: str
) -> None:
    process = pipeline.of(victim)[0]
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, 8)
        process.stop()
        names = [name for name in NAMES if name.startswith(prefix)]
        answered = sum([await _die_at(pipeline, process, name, wallets) for name in names])
        process.start()
        await pipeline.ready(process)
        answered += await transfer_in_a_ring(api, wallets, 2)
        found = [(await api.get(f"/wallets/{wallet}")).json() for wallet in wallets]
    assert sum(Decimal(wallet["balance"]) for wallet in found) == 800
    # Created, funded, and one more for each side of each transfer: what was answered was done, once.
    assert sum(wallet["version"] for wallet in found) == 16 + 2 * answered
    await wait_until_complete(pipeline, wallets)
    await assert_verified(pipeline)


async def _die_at(pipeline: Pipeline, process: Process, name: str, wallets: list[str]) -> int:
    """Let the process die at its second visit of the failpoint, under traffic; then run without.

    Returns how many transfers were answered.
    """
    process.start(FAILPOINTS=f"{name}=kill@2")
    assert process.child is not None
    dead = asyncio.Event()

    async def traffic() -> int:
        answered = 0
        async with pipeline.client("wallet-api") as api:
            while not dead.is_set():
                answered += await transfer_in_a_ring(api, wallets, 1)
        return answered

    async def died() -> bool:
        assert process.child is not None
        return process.child.poll() is not None

    async with asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(traffic())
        await pipeline.eventually(died, 60)
        assert process.child.returncode == -signal.SIGKILL, process.log_file.read_text()[-2000:]
        process.start()
        dead.set()
    process.stop()
    return busy.result()
