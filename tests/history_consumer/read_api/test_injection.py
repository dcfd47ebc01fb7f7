"""Hostile text in each input of each route stays text."""

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from support.history_events import History, Wallet
from support.injections import attacks


async def test_hostile_text_in_any_input_is_refused_or_finds_nothing(
    api: httpx.AsyncClient, history: History, engine: AsyncEngine
) -> None:
    ada = Wallet("ada")
    await history.add(ada.created(), ada.funded("50.00"))
    path = f"/history/wallets/{ada.id}"
    before = (await api.get(path)).json()
    document = (await api.get("/openapi.json")).json()
    count = 0
    for attack in attacks(document, {"wallet_id": str(ada.id), "user_id": "ada"}):
        reply = await attack.send(api)
        count += 1
        assert reply.status_code in {200, 400, 404, 405, 422}, (attack, reply.text)
        assert not any(character in value for value in reply.headers.values() for character in "\r\n\0"), attack
        reply.json()
    assert count > 500
    assert (await api.get(path)).json() == before
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM wallet.wallets")) == 0
