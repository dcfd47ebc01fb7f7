"""Each process is killed at each of its failpoints and started again, and every promise holds."""

import asyncio
import signal
from decimal import Decimal

import asyncpg
import httpx
import pytest

from common.failpoints import NAMES
from support.processes import Pipeline, Process, http_client
from support.traffic import (
    Transfer,
    assert_verified,
    create_wallets,
    ring,
    transfer_in_a_ring,
    transfer_in_a_ring_until,
    wait_until_complete,
)

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
        answered = await _die_at_each(pipeline, process, names, wallets)
        await pipeline.ready(process)
        answered += await transfer_in_a_ring(api, wallets, 2)
        found = [(await api.get(f"/wallets/{wallet}")).json() for wallet in wallets]
    assert sum(Decimal(wallet["balance"]) for wallet in found) == 800
    # Created, funded, and one version for each side of each transfer: every answered transfer was done once.
    assert sum(wallet["version"] for wallet in found) == 16 + 2 * answered
    await wait_until_complete(pipeline, wallets)
    await assert_verified(pipeline)


async def _die_at_each(pipeline: Pipeline, process: Process, names: list[str], wallets: list[str]) -> int:
    """Let the process die at its second visit of each failpoint, under traffic, and start it again.

    Returns how many transfers were answered.
    """
    survived = asyncio.Event()

    async with pipeline.client("wallet-api") as api, asyncio.TaskGroup() as tasks:
        traffic = tasks.create_task(transfer_in_a_ring_until(survived, api, wallets))
        for name in names:
            process.start(FAILPOINTS=f"{name}=kill@2")
            await _until_killed(pipeline, process)
        process.start()
        survived.set()
    return traffic.result()


async def _until_killed(pipeline: Pipeline, process: Process) -> None:
    child = process.child
    assert child is not None

    async def died() -> bool:
        return child.poll() is not None

    await pipeline.eventually(died, 60)
    assert child.returncode == -signal.SIGKILL, process.log_file.read_text()[-2000:]


_BATCH, _QUEUE, _REFUSED = 16, 48, 8
_FULL: dict[str, str] = {
    "BATCH_COMMANDS_MAX": str(_BATCH),
    "QUEUE_COMMANDS_MAX": str(_QUEUE),
    "BUSY_RETRY_SECONDS": "60",
    "BATCH_LOCK_TIMEOUT_SECONDS": "60",
    "STATEMENT_TIMEOUT_SECONDS": "90",
    "TRANSACTION_TIMEOUT_SECONDS": "90",
    "REQUEST_DEADLINE_SECONDS": "90",
}


async def test_a_batch_in_flight_and_a_full_queue_that_die_with_the_api_are_done_once_each_when_asked_again(
    pipeline: Pipeline,
) -> None:
    names = [name for name in NAMES if name.startswith("api.")]
    doomed = {name: pipeline.make("wallet-api", FAILPOINTS=f"{name}=kill@2", **_FULL) for name in names}
    for process in doomed.values():
        process.start()
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, 8)
        asked = sum([await _die_full(pipeline, process, name, wallets) for name, process in doomed.items()])
        found = [(await api.get(f"/wallets/{wallet}")).json() for wallet in wallets]
    assert sum(Decimal(wallet["balance"]) for wallet in found) == 800
    assert sum(wallet["version"] for wallet in found) == 16 + 2 * asked
    await wait_until_complete(pipeline, wallets)
    await assert_verified(pipeline)


async def _die_full(pipeline: Pipeline, process: Process, name: str, wallets: list[str]) -> int:
    """Let the process die at the failpoint with a batch in flight and a full queue behind it; ask another for all.

    Returns how many transfers were asked for.
    """
    await pipeline.ready(process)
    transfers = [transfer for _ in range((_QUEUE + _REFUSED) // len(wallets)) for transfer in ring(wallets)]
    first = Transfer(wallets[0], wallets[1])
    holder, watcher = [await asyncpg.connect(pipeline.environment["DATABASE_URL"]) for _ in range(2)]
    limits = httpx.Limits(max_connections=None)
    async with http_client(process.url, timeout=60, limits=limits) as api:
        async with holder.transaction():
            # The first batch waits for this lock, and the queue fills up behind it.
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            tasks = [asyncio.create_task(first.ask(api))]
            await pipeline.eventually(lambda: _is_blocked(watcher))
            tasks += [asyncio.create_task(transfer.ask(api)) for transfer in transfers]

            async def is_full() -> bool:
                return sum(task.done() for task in tasks) == _REFUSED

            await pipeline.eventually(is_full)
        await _until_killed(pipeline, process)
        replies = await asyncio.gather(*tasks)
    async with pipeline.client("wallet-api") as api:
        again = await asyncio.gather(*(transfer.ask_until_done(api) for transfer in [first, *transfers]))
    await asyncio.gather(holder.close(), watcher.close())
    # The first transfer and the refused ones got a reply. All other connections broke.
    assert [reply.status_code for reply in replies if reply].count(503) == _REFUSED
    assert sum(reply is None for reply in replies) >= _QUEUE
    for before, after in zip(replies, again, strict=True):
        if before and before.status_code == 200:
            assert (after.content, after.headers["idempotent-replayed"]) == (before.content, "true")
    replayed = sum("idempotent-replayed" in reply.headers for reply in again)
    assert replayed == 1 + (_BATCH if name == "api.committed" else 0)
    return len(again)


async def _is_blocked(connection: asyncpg.Connection) -> bool:
    blocked = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'wallet-api'"
    )
    return bool(await connection.fetch(blocked))
