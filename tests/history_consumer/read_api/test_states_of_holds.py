"""What became of a hold is the same wherever it is told: replies, ledger, events and history."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from httpx import AsyncClient

from common.settings import PipelineSettings
from common.tables.roles import Role
from support.applications import client_of
from support.pipelines import run_consumer, run_relay
from support.roles import ROLES
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
OpenApi = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Eventually = Callable[..., Awaitable[Any]]


async def post(api: AsyncClient, path: str, **body: Any) -> Json:
    reply = await api.post(path, json=body)
    assert reply.is_success, reply.text
    done: Json = reply.json()
    return done


async def make_holds(api: AsyncClient, wallet: str, eventually: Eventually) -> dict[str, Json]:
    """Make a hold for each state, the last of which is open; return what the reply to its last step told, by state."""
    told = [(await post(api, f"{wallet}/holds", amount="10", expires_in=1 + 1000 * (n != 2)))["hold"] for n in range(4)]
    captured, voided, expired, opened = (f"/holds/{hold['id']}" for hold in told)
    await post(api, f"{captured}/capture", amount="4", final=False)
    told[0] = (await post(api, f"{captured}/capture", amount="5"))["hold"]
    told[1] = (await post(api, f"{voided}/void"))["hold"]
    await post(api, f"{opened}/capture", amount="1", final=False)

    async def is_released() -> bool:
        return bool((await api.get(wallet)).json()["held"] == "9.00")

    await eventually(is_released)
    told[2:] = [(await api.get(path)).json() for path in (expired, opened)]
    return {hold["status"]: hold for hold in told}


async def test_a_hold_has_the_same_state_in_replies_ledger_events_and_history(
    database_url: str, kafka_bootstrap_servers: str, topic: str, open_api: OpenApi, eventually: Eventually
) -> None:
    """blnk#293: a transaction that was committed still said that it was in flight."""
    url = ROLES.url(database_url, Role.API)
    settings = WalletApiSettings(auth="none", database_url=url, log_level="warning", hold_release_seconds=0.05)
    async with client_of(create_app(settings)) as api:
        wallet_id = (await post(api, "/wallets", user_id="ada", currency="EUR"))["id"]
        wallet = f"/wallets/{wallet_id}"
        await post(api, f"{wallet}/fund", amount="50")
        told = await make_holds(api, wallet, eventually)
        assert told.keys() == {"captured", "voided", "expired", "open"}
        read = {status: (await api.get(f"/holds/{hold['id']}")).json() for status, hold in told.items()}
        last = [(await api.get(f"/transactions/{hold['transaction_ids'][-1]}")).json() for hold in read.values()]
    pipeline = PipelineSettings(
        database_url=database_url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=topic
    )
    await run_relay(pipeline)
    await run_consumer(pipeline)
    async with open_api(database_url) as history:
        items = (await history.get(f"/history{wallet}", params={"limit": 100, "order": "asc"})).json()["items"]
    changes = [item["event_data"]["hold"] for item in items if "hold" in item["event_data"]]
    events = {hold["id"]: hold for hold in changes}
    for hold, transaction in zip(read.values(), last, strict=True):
        event = events[hold["id"]]
        assert event == {name: hold[name] for name in event} == {name: told[hold["status"]][name] for name in event}
        assert transaction["details"]["hold"] == event
