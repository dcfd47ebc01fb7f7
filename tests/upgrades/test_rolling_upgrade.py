"""An upgrade from the last release and back, process by process, while requests go on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from common.access.caller import SCOPES
from common.tables.roles import Role
from support.processes import COMMANDS, Pipeline, http_client
from support.releases import walletctl
from support.traffic import PAUSE_SECONDS, Transfer, assert_verified, create_wallets, ring, wait_until_complete

ORDER = ("history-consumer", "history-api", "outbox-relay", "wallet-api")
"""The order of an upgrade: readers of events and tables before their writers."""
SENDERS = 6
KINDS = ("transfer", "create", "fund", "read", "ledger")


@dataclass
class Traffic:
    """Clients that ask again and again, through the API that is in service, and repeat no request."""

    url: str
    api_key: str
    wallets: list[str]
    eventually: Callable[..., Awaitable[Any]]
    done: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def transfer(self, sender: str, receiver: str) -> None:
        async with http_client("", api_key=self.api_key, timeout=20) as client:
            while not self.stop.is_set():
                await self._ask(client, "transfer", lambda: Transfer(sender, receiver).ask(client))
                await asyncio.sleep(PAUSE_SECONDS)

    async def create_fund_and_read(self) -> None:
        newcomer, amount = {"user_id": "newcomer", "currency": "EUR"}, {"amount": "1.00"}
        async with http_client("", api_key=self.api_key, timeout=20) as client:
            while not self.stop.is_set():
                created = await self._ask(client, "create", lambda: client.post("/wallets", json=newcomer))
                path = f"/wallets/{created.json().get('id') if created else None}"
                await self._ask(client, "fund", partial(client.post, f"{path}/fund", json=amount))
                await self._ask(client, "read", partial(client.get, path))
                await self._ask(client, "ledger", partial(client.get, f"{path}/transactions"))
                await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(
        self, client: httpx.AsyncClient, kind: str, ask: Callable[[], Awaitable[httpx.Response | None]]
    ) -> httpx.Response | None:
        url = self.url
        client.base_url = httpx.URL(url)
        self.under_way[url] += 1
        reply = await ask()
        self.under_way[url] -= 1
        if reply is not None and reply.is_success:
            self.done[kind] += 1
        else:
            self.failures.append(f"{kind}: {'the connection broke' if reply is None else reply.text}")
        return reply

    async def move_to(self, url: str) -> None:
        """Send new requests there, and wait until the others are answered, as a load balancer does."""
        before, self.url = self.url, url

        async def is_left() -> bool:
            return self.under_way[before] == 0

        await self.eventually(is_left, 60)

    async def goes_on(self) -> None:
        """Wait for some requests of each kind that begin after this moment."""
        before = self.done.copy()

        async def are_done() -> bool:
            assert not self.failures
            return self.done["transfer"] > before["transfer"] + 2 * SENDERS and all(
                self.done[kind] > before[kind] + 1 for kind in KINDS
            )

        await self.eventually(are_done, 60)


@asynccontextmanager
async def traffic_of(pipeline: Pipeline) -> AsyncIterator[Traffic]:
    async with pipeline.client("wallet-api") as api:
        wallets = await create_wallets(api, SENDERS)
    (process,) = pipeline.of("wallet-api")
    traffic = Traffic(process.url, pipeline.api_key, wallets, pipeline.eventually)
    async with asyncio.TaskGroup() as clients:
        for pair in ring(wallets):
            clients.create_task(traffic.transfer(pair.sender, pair.receiver))
        clients.create_task(traffic.create_fund_and_read())
        try:
            yield traffic
        finally:
            traffic.stop.set()


async def replace_processes(pipeline: Pipeline, traffic: Traffic, version: dict[str, str]) -> None:
    """Start one of each process in that version. When they are ready, stop the others one by one."""
    others = list(pipeline.processes)
    await asyncio.gather(*(pipeline.add(name, **version) for name in COMMANDS))
    await traffic.goes_on()
    for name in ORDER:
        (other,) = (process for process in others if process.name == name)
        if name == "wallet-api":
            await traffic.move_to(pipeline.of(name)[-1].url)
        assert await asyncio.to_thread(other.stop) == 0, other.log_file.read_text()
        pipeline.processes.remove(other)
        await traffic.goes_on()


# It starts twelve processes: half a minute alone on two cores, and minutes beside other work.
@pytest.mark.timeout(300)
async def test_an_upgrade_and_a_roll_back_under_traffic_fail_no_request_and_lose_no_event(
    pipeline: Pipeline, last_release: dict[str, str]
) -> None:
    owner, auditor = pipeline.environment, pipeline.environment_of(Role.AUDITOR)
    await walletctl("db", "migrate", **owner, **last_release)
    created = await walletctl("keys", "create", "--name=traffic", f"--scopes={','.join(SCOPES)}", **owner)
    pipeline.api_key = created.split()[-1]
    await asyncio.gather(*(pipeline.add(name, **last_release) for name in COMMANDS))
    async with traffic_of(pipeline) as traffic:
        await traffic.goes_on()
        await walletctl("db", "migrate", **owner)
        await traffic.goes_on()
        await replace_processes(pipeline, traffic, {})
        # In the same order: then the last release also reads what this version's API writes.
        await replace_processes(pipeline, traffic, last_release)
    await wait_until_complete(pipeline, traffic.wallets)
    assert traffic.failures == []
    await assert_verified(pipeline)
    await walletctl("verify", **auditor, **last_release)
