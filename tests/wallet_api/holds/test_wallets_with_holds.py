"""A wallet and its holds, read as of one moment."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from wallet_api import routes
from wallet_api.holds.replies import EXPANDED_HOLDS_MAX

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
async def client(open_client: OpenClient) -> Any:
    """A client of an API whose releaser never comes by."""
    async with open_client(hold_release_seconds=86_400) as client:
        yield client


async def place(client: AsyncClient, wallet: Json, amount: str) -> str:
    reply = await client.post(f"/wallets/{wallet['id']}/holds", json={"amount": amount})
    return str(reply.json()["hold"]["id"])


def reserved(holds: list[Json]) -> Decimal:
    return sum((Decimal(hold["amount"]) - Decimal(hold["captured"]) for hold in holds), Decimal())


async def test_a_wallet_is_read_with_the_holds_that_make_up_what_is_held(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet(balance="50")
    plain = await client.get(f"/wallets/{wallet['id']}")
    assert "holds" not in plain.json()
    placed = [await place(client, wallet, amount) for amount in ("5", "6", "7", "8")]
    await client.post(f"/holds/{placed[0]}/capture", json={"amount": "2", "final": False})
    await client.post(f"/holds/{placed[1]}/void", json={})
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE id = $1", UUID(placed[2]))
    read = await client.get(f"/wallets/{wallet['id']}?expand=holds")
    found = read.json()
    holds = found.pop("holds")
    assert found == (await client.get(f"/wallets/{wallet['id']}")).json()
    assert read.headers["etag"] == f'"{found["version"]}"'
    # The overdue hold is released when the money is needed. Until then it is a part of what is held.
    assert [hold["id"] for hold in holds["items"]] == [placed[3], placed[2], placed[0]]
    assert [hold["status"] for hold in holds["items"]] == ["open", "expired", "open"]
    assert reserved(holds["items"]) == Decimal(found["held"]) == 18
    assert holds["next_cursor"] is None
    for hold in holds["items"]:
        assert (await client.get(f"/holds/{hold['id']}")).json() == hold
    # Holds expire while the version stays: a client never gets 304 for them.
    again = await client.get(f"/wallets/{wallet['id']}?expand=holds", headers={"If-None-Match": read.headers["etag"]})
    assert again.json() == read.json()


async def test_while_holds_come_and_go_each_view_of_a_wallet_and_its_holds_adds_up(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    """tb#2693: the balance and what is pending were not in one view."""
    wallet = await new_wallet(balance="100")

    async def change() -> None:
        for number in range(1, 9):
            hold = await place(client, wallet, str(number))
            if number % 2:
                await client.post(f"/holds/{hold}/capture", json={"amount": "0.50", "final": False})
            else:
                await client.post(f"/holds/{hold}/void", json={})

    changing = [asyncio.create_task(change()) for _ in range(3)]
    views = []
    while not all(task.done() for task in changing):
        views.append((await client.get(f"/wallets/{wallet['id']}?expand=holds")).json())
    await asyncio.gather(*changing)
    assert len({view["version"] for view in views}) > 1
    for view in views:
        assert reserved(view["holds"]["items"]) == Decimal(view["held"])


async def test_the_holds_are_bounded_and_their_cursor_goes_on_with_the_list(
    client: AsyncClient, new_wallet: NewWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EXPANDED_HOLDS_MAX == 100
    monkeypatch.setattr(routes, "EXPANDED_HOLDS_MAX", 2)
    wallet = await new_wallet(balance="50")
    placed = [await place(client, wallet, "1") for _ in range(5)]
    first = (await client.get(f"/wallets/{wallet['id']}?expand=holds")).json()["holds"]
    rest = await client.get(f"/wallets/{wallet['id']}/holds", params={"status": "open", "cursor": first["next_cursor"]})
    assert [hold["id"] for page in (first, rest.json()) for hold in page["items"]] == placed[::-1]


async def test_an_unknown_expansion_is_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    for query in ("expand=", "expand", "expand=hold", "expand=holds,limits", "expand=holds&expand=x"):
        problem = assert_problem(await client.get(f"/wallets/{wallet['id']}?{query}"), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["expand"]
    assert_problem(
        await client.get("/wallets/0198c2a5-0000-7000-8000-000000000001?expand=holds"), 404, "wallet-not-found"
    )
