from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import orjson
from httpx import AsyncClient

from common.events.encoding import decode
from common.events.models import EVENT_MODELS, event_type_of
from support.limits import put_limits

Json = dict[str, Any]
Eventually = Callable[..., Awaitable[Any]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

TEXTS = {"reference": "r", "metadata": {"n": [1, 2.5, None, "é"]}}
WHY = {"reason": "a test"}


async def test_each_event_in_the_outbox_is_what_its_model_encodes(
    client: AsyncClient, new_wallet: Callable[..., Awaitable[Json]], sql: Sql, eventually: Eventually
) -> None:
    ada, bob = [await new_wallet(user, external_id="x") for user in ("ada", "bob")]
    path, to_bob = f"/wallets/{ada['id']}", {"to_wallet_id": bob["id"]}

    posted: list[Json] = []

    async def post(target: str, body: Json) -> Json:
        # An event without an external id doesn't have the field.
        posted.append({**TEXTS, **body, **({"external_id": f"my {len(posted)}"} if len(posted) % 2 else {})})
        answer = await client.post(target, json=posted[-1])
        assert answer.status_code in {200, 201}, answer.text
        reply: Json = answer.json()
        return reply

    async def hold(**fields: Any) -> str:
        return f"/holds/{(await post(f'{path}/holds', {'amount': '2', **to_bob, **fields}))['hold']['id']}"

    await post(f"{path}/fund", {"amount": "90.00"})
    await post(f"{path}/withdraw", {"amount": 1.5})
    sent = await post(f"{path}/transfer", {"amount": "1", **to_bob})
    await post(f"/transactions/{sent['transaction_id']}/reverse", {"amount": "0.50", **WHY})
    await post(f"{path}/split", {"amount": "5", "legs": [{**to_bob, "amount": "rest"}]})
    await post(f"{await hold()}/capture", {"amount": "0.50", "final": False})
    await post(f"{await hold()}/void", WHY)
    await hold(expires_in=1)
    for operation, body in {"freeze": {"blocks": "in"}, "unfreeze": {}}.items():
        await post(f"{path}/{operation}", {**WHY, **body})
    # With a sweep, and so with details of its own.
    for operation, body in {"close": {"sweep_to_wallet_id": ada["id"]}, "reopen": {}}.items():
        await post(f"/wallets/{bob['id']}/{operation}", {**WHY, **body})

    limits = [{"id": "a", "direction": "out", "window": "day", "types": ["SPLIT"], "amount": "9", "count": 2}]
    await put_limits(client, ada, overdraft_limit="5", balance_max=100, velocity=limits, **TEXTS)

    async def payloads() -> list[str]:
        rows = await sql("SELECT event_type, payload::text FROM wallet.outbox ORDER BY id")
        missing = {event_type_of(model) for model in EVENT_MODELS} - {row["event_type"] for row in rows}
        return [] if missing else [row["payload"] for row in rows]

    for payload in await eventually(payloads):
        value = orjson.loads(payload)
        assert value == orjson.loads(decode(value).encode())
