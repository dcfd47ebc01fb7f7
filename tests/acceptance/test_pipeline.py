"""The pipeline's promises, with real processes."""

import asyncio
import json
import signal
from decimal import Decimal

import asyncpg
import pytest

from common.tables.roles import Role
from support.api_keys import KEY
from support.command_lines import AsyncWalletCtl, run_walletctl, walletctl
from support.processes import Pipeline, http_client
from support.traffic import (
    assert_verified,
    create_wallets,
    transfer_in_a_ring,
    transfer_in_a_ring_until,
    wait_until_complete,
)

__all__ = ["run_walletctl", "walletctl"]


async def test_every_movement_reaches_the_history_exactly_once_and_in_order(pipeline: Pipeline) -> None:
    async with pipeline.client("wallet-api") as api, pipeline.client("history-api") as history:
        wallets = await create_wallets(api, 6)
        await transfer_in_a_ring(api, wallets, 10)
        await wait_until_complete(pipeline, wallets)
        for wallet_id in wallets:
            items = (await history.get(f"/history/wallets/{wallet_id}?order=asc&limit=100")).json()["items"]
            assert [item["wallet_version"] for item in items] == list(range(1, 23))
            balance = Decimal(0)
            for item in items:
                sign = {"in": 1, "out": -1, None: 0}[item["direction"]]
                balance += sign * Decimal(item["amount"] or 0)
                assert Decimal(item["balance_after"]) == balance
            ledger = (await api.get(f"/wallets/{wallet_id}/transactions?order=asc&limit=100")).json()["items"]
            assert [entry["transaction_id"] for entry in ledger] == [item["transaction_id"] for item in items[1:]]
    await assert_verified(pipeline)


@pytest.mark.parametrize("victim", ["wallet-api", "outbox-relay", "history-consumer", "history-api"])
async def test_nothing_is_lost_or_doubled_when_a_process_is_killed_and_comes_back(
    pipeline: Pipeline, victim: str
) -> None:
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, 8)
        killed_twice = asyncio.Event()
        process = pipeline.of(victim)[0]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(transfer_in_a_ring_until(killed_twice, api, wallets))
            for _ in range(2):
                await transferred(pipeline, 40)
                process.stop(signal.SIGKILL)
                process.start()
                await pipeline.ready(process)
            killed_twice.set()
        total = sum([Decimal((await api.get(f"/wallets/{wallet}")).json()["balance"]) for wallet in wallets])
    assert total == 800
    await wait_until_complete(pipeline, wallets)
    await assert_verified(pipeline)


async def transferred(pipeline: Pipeline, more: int) -> None:
    """Wait until so many more transfers have been answered."""
    start = await _operations(pipeline)

    async def moved() -> bool:
        return await _operations(pipeline) >= start + more

    await pipeline.eventually(moved)


async def _operations(pipeline: Pipeline) -> float:
    async with pipeline.client("wallet-api") as api:
        metrics = (await api.get("/metrics")).text
    prefix = 'wallet_operations_total{operation="transfer",outcome="done"} '
    return sum(float(line.removeprefix(prefix)) for line in metrics.splitlines() if line.startswith(prefix))


async def test_two_relays_and_two_consumers_break_no_promise_while_they_come_and_go(pipeline: Pipeline) -> None:
    async with pipeline.client("wallet-api") as api:
        before = await _event_count(pipeline)
        relay, consumer = await asyncio.gather(pipeline.add("outbox-relay"), pipeline.add("history-consumer"))
        wallets = await create_wallets(api, 8)
        await transfer_in_a_ring(api, wallets, 10)
        assert relay.stop() == 0
        assert consumer.stop() == 0
        await transfer_in_a_ring(api, wallets, 10)
    await wait_until_complete(pipeline, wallets)
    assert await _event_count(pipeline) - before == 8 + 8 + 160
    await assert_verified(pipeline)


async def _event_count(pipeline: Pipeline) -> int:
    """Return how many events the outbox has, each of which is there once."""
    connection = await asyncpg.connect(pipeline.environment["DATABASE_URL"])
    count, distinct = await connection.fetchrow("SELECT count(*), count(DISTINCT event_id) FROM wallet.outbox")
    await connection.close()
    assert count == distinct
    return int(count)


async def test_a_stopped_relay_leaves_at_once_with_everything_settled_that_it_sent(pipeline: Pipeline) -> None:
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, 4)
        assert pipeline.of("outbox-relay")[0].stop() == 0
        await transfer_in_a_ring(api, wallets, 5)
        await assert_verified(pipeline)
        relay = pipeline.of("outbox-relay")[0]
        relay.start()
        await pipeline.ready(relay)
    await wait_until_complete(pipeline, wallets)
    await assert_verified(pipeline)


async def test_metrics_of_several_api_workers_add_up(pipeline: Pipeline) -> None:
    process = await pipeline.add("wallet-api", WALLET_API_WORKERS="2")
    async with http_client(process.url) as api:
        for _ in range(20):
            # A connection of its own each time, so that both workers get some.
            async with http_client(process.url) as one:
                body = {"user_id": "ada", "currency": "EUR"}
                (await one.post("/wallets", json=body)).raise_for_status()
        metrics = (await api.get("/metrics")).text
    assert 'wallet_operations_total{operation="create",outcome="done"} 20.0' in metrics


def demo_environment(pipeline: Pipeline, key: str = KEY) -> dict[str, str]:
    """Return the variables by which the demo finds the APIs."""
    urls = {"WALLET_API_URL": pipeline.of("wallet-api")[0].url, "HISTORY_API_URL": pipeline.of("history-api")[0].url}
    return {**urls, "WALLET_API_KEY": key}


async def test_the_demo_proves_the_promises_of_running_services_as_an_auditor(
    pipeline: Pipeline, run_walletctl: AsyncWalletCtl
) -> None:
    environment = {**pipeline.environment_of(Role.AUDITOR), **demo_environment(pipeline)}
    code, output = await run_walletctl("stack", "demo", "--against-env", "--json", **environment)
    assert code == 0, output
    report = json.loads(output)
    assert report["ok"]
    assert report["operations"]["wallets created"] == 40
    assert report["verify"]["ok"]
    assert len(report["verify"]["checks"]) == 13


async def test_the_demo_tells_the_refusal_of_its_key_in_one_line(
    pipeline: Pipeline, run_walletctl: AsyncWalletCtl
) -> None:
    environment = demo_environment(pipeline, "no-key")
    code, output = await run_walletctl("stack", "demo", "--against-env", **environment)
    assert code == 1
    assert "401" in output
    assert len(output.splitlines()) == 1
