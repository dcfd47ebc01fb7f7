"""Requests to a running pipeline, and checks that their effects have arrived."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from common.settings import PipelineSettings
from common.tables.roles import Role
from support.processes import Pipeline
from walletctl.verify.audit import audit

PAUSE_SECONDS = 0.05
"""Before a request is sent again, so that the retries leave the processor to a process that is starting."""


async def create_wallets(api: httpx.AsyncClient, count: int) -> list[str]:
    bodies = [{"user_id": f"user-{number % 3}", "currency": "EUR"} for number in range(count)]
    replies = await asyncio.gather(*(api.post("/wallets", json=body) for body in bodies))
    ids = [reply.raise_for_status().json()["id"] for reply in replies]
    funds = (api.post(f"/wallets/{wallet_id}/fund", json={"amount": "100.00"}) for wallet_id in ids)
    for reply in await asyncio.gather(*funds):
        reply.raise_for_status()
    return ids


@dataclass(frozen=True)
class Transfer:
    """One transfer of a cent, with an idempotency key of its own."""

    sender: str
    receiver: str
    key: str = field(default_factory=lambda: str(uuid4()))

    async def ask(self, api: httpx.AsyncClient) -> httpx.Response | None:
        """Send it once; return None if the connection broke."""
        body = {"to_wallet_id": self.receiver, "amount": "0.01"}
        try:
            return await api.post(f"/wallets/{self.sender}/transfer", json=body, headers={"Idempotency-Key": self.key})
        except httpx.TransportError:
            return None

    async def ask_until_done(self, api: httpx.AsyncClient) -> httpx.Response:
        """Send it until the reply is 200, each time with the same key."""
        while (reply := await self.ask(api)) is None or reply.status_code != 200:
            assert reply is None or reply.status_code in {409, 503}, reply.text
            await asyncio.sleep(PAUSE_SECONDS)
        return reply


def ring(wallets: list[str]) -> list[Transfer]:
    """Return a transfer from each wallet to the next one: each wallet sends one and receives one."""
    return [Transfer(*pair) for pair in zip(wallets, wallets[1:] + wallets[:1], strict=True)]


async def transfer_in_a_ring(api: httpx.AsyncClient, wallets: list[str], rounds: int) -> int:
    """Let each wallet send to the next one, so many rounds; return how many transfers were made."""
    for _ in range(rounds):
        await asyncio.gather(*(transfer.ask_until_done(api) for transfer in ring(wallets)))
    return rounds * len(wallets)


async def transfer_in_a_ring_until(end: asyncio.Event, api: httpx.AsyncClient, wallets: list[str]) -> int:
    """Let each wallet send to the next one, round after round; return how many transfers were made."""
    made = 0
    while not end.is_set():
        made += await transfer_in_a_ring(api, wallets, 1)
    return made


async def wait_until_complete(pipeline: Pipeline, wallets: list[str]) -> None:
    async with pipeline.client("wallet-api") as api, pipeline.client("history-api") as history:
        for wallet_id in wallets:
            version = (await api.get(f"/wallets/{wallet_id}")).json()["version"]

            async def arrived(wallet_id: str = wallet_id, version: int = version) -> bool:
                reply = await history.get(f"/history/wallets/{wallet_id}", params={"min_version": version})
                return reply.status_code == 200 and reply.json()["complete"]

            await pipeline.eventually(arrived, 60)


async def assert_verified(pipeline: Pipeline) -> None:
    environment = pipeline.environment_of(Role.AUDITOR)
    settings = PipelineSettings(
        database_url=environment["DATABASE_URL"],
        kafka_bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
        kafka_topic=environment["KAFKA_TOPIC"],
        consumer_group=environment["CONSUMER_GROUP"],
    )
    report = await audit(settings)
    assert report.ok, report.differences
