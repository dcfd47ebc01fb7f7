"""Callers that look transactions up, and how they do it."""

from typing import Any

from httpx import AsyncClient

from support.callers import Headers, credentials

Json = dict[str, Any]

ADMIN, ADA, BOB, EVE = (
    credentials("admin"),
    credentials("key-of-ada", "ada"),
    credentials("key-of-bob", "bob"),
    credentials("key-of-eve", "eve"),
)
NOTHING: Json = {"items": [], "next_cursor": None}


async def move(
    client: AsyncClient, sender: str, receiver: str | None = None, *, headers: Headers = ADMIN, **body: Any
) -> Json:
    """Transfer, or fund the sender where there is no receiver; return the reply."""
    target = f"/wallets/{sender}/{'transfer' if receiver else 'fund'}"
    document = {"amount": "1", **({"to_wallet_id": receiver} if receiver else {}), **body}
    reply = await client.post(target, json=document, headers=headers)
    assert reply.status_code == 200, reply.text
    moved: Json = reply.json()
    return moved


async def found(client: AsyncClient, headers: Headers = ADMIN, **query: Any) -> Json:
    """Return a page of transactions."""
    reply = await client.get("/transactions", params=query, headers=headers)
    assert reply.status_code == 200, reply.text
    page: Json = reply.json()
    return page


async def pages_of(client: AsyncClient, headers: Headers = ADMIN, **query: Any) -> list[Json]:
    """Return all pages of a search."""
    pages = [await found(client, headers, **query)]
    while cursor := pages[-1]["next_cursor"]:
        pages.append(await found(client, headers, cursor=cursor, **query))
    return pages


def ids(page: Json) -> list[str]:
    """Return the ids of a page's transactions."""
    return [item["transaction_id"] for item in page["items"]]
