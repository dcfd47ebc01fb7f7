"""Waiting until the history is complete, and measuring how long each event took."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import httpx2

from walletctl.demo.wallet_model import WalletModel

_CATCH_UP_SECONDS_MAX: Final = 60.0
_CONCURRENT: Final = 8
_NOT_YET: Final = (httpx2.codes.NOT_FOUND, httpx2.codes.SERVICE_UNAVAILABLE)
"""The statuses for which the demo asks again. `read_history` fails for another one."""


async def check_balances(api: httpx2.AsyncClient, wallets: Sequence[WalletModel]) -> tuple[dict[str, int], list[str]]:
    """Compare each balance with the one that the replies add up to; return versions by wallet, and the differences."""
    versions, broken = {}, []
    for wallet in wallets:
        found = (await api.get(f"/wallets/{wallet.id}")).raise_for_status().json()
        versions[wallet.id] = found["version"]
        if Decimal(found["balance"]) != wallet.balance:
            broken.append(f"wallet {wallet.id}: expected {wallet.balance} {wallet.currency}, found {found['balance']}")
    return versions, broken


async def wait_for_history(history: httpx2.AsyncClient, versions: dict[str, int]) -> list[str]:
    """Wait until the history of each wallet is complete up to its version; return a line for each that is late."""

    async def wait_for(wallet_id: str, version: int) -> None:
        parameters = {"min_version": version, "limit": 1}
        while (await history.get(f"/history/wallets/{wallet_id}", params=parameters)).status_code in _NOT_YET:
            await asyncio.sleep(0.1)

    waiting = {wallet_id: asyncio.create_task(wait_for(wallet_id, version)) for wallet_id, version in versions.items()}
    await asyncio.wait(waiting.values(), timeout=_CATCH_UP_SECONDS_MAX)
    late = [wallet_id for wallet_id, task in waiting.items() if not task.done()]
    for task in waiting.values():
        task.cancel()
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    return [
        f"wallet {wallet_id}: its history was not complete within {_CATCH_UP_SECONDS_MAX:.0f} s" for wallet_id in late
    ]


async def read_history(history: httpx2.AsyncClient, versions: dict[str, int]) -> tuple[list[float], list[str]]:
    """Read every wallet's history; return each row's latency in seconds, and a line for each wrong history."""
    latencies: list[float] = []
    broken: list[str] = []
    limit = asyncio.Semaphore(_CONCURRENT)

    async def read(wallet_id: str, version: int) -> None:
        async with limit:
            items = await _all_items(history, wallet_id)
        if [item["wallet_version"] for item in items] != list(range(1, version + 1)):
            broken.append(f"wallet {wallet_id}: its history is not the versions 1 to {version}, each once, in order")
        latencies.extend(_seconds(item) for item in items)

    await asyncio.gather(*(read(*pair) for pair in versions.items()))
    return latencies, broken


async def _all_items(history: httpx2.AsyncClient, wallet_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"order": "asc", "limit": 100}
    while True:
        response = await history.get(f"/history/wallets/{wallet_id}", params=parameters)
        page = response.raise_for_status().json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        parameters["cursor"] = page["next_cursor"]


def _seconds(item: dict[str, Any]) -> float:
    recorded, created = (datetime.fromisoformat(item[name]) for name in ("recorded_at", "created_at"))
    return (recorded - created).total_seconds()
