"""Set the limits of a wallet."""

from typing import Any, Final

from httpx import AsyncClient

LIMITLESS: Final[dict[str, Any]] = {"overdraft_limit": "0", "balance_max": None, "velocity": []}
"""The limits of a new wallet, as the body of a request."""


async def put_limits(client: AsyncClient, wallet: dict[str, Any], **limits: Any) -> dict[str, Any]:
    """Give the wallet these limits, and no other; return the reply."""
    reply = await client.put(f"/wallets/{wallet['id']}/limits", json={**LIMITLESS, **limits}, headers={"If-Match": "*"})
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = reply.json()
    return told
