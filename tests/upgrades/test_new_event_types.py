"""A consumer of the last release meets the event types that this release adds."""

import json
from collections import Counter
from typing import Any

import pytest
from httpx import AsyncClient

from common.access.caller import SCOPES
from common.tables.roles import Role
from support.processes import COMMANDS, Pipeline
from support.releases import walletctl
from support.traffic import assert_verified, create_wallets, wait_until_complete


def new_operations(other: str) -> dict[str, Any]:
    """Return the operations that the last release lacks, each with its body."""
    why = {"reason": "a test"}
    return {
        "withdraw": {"amount": "1.00"},
        "split": {"legs": [{"to_wallet_id": other, "amount": "1.00"}]},
        "freeze": {"blocks": "all", **why},
        "unfreeze": why,
        "close": {"sweep_to_wallet_id": other, **why},
        "reopen": why,
    }


async def new_balances_below_zero(api: AsyncClient, wallet: str) -> None:
    """Overdraw a wallet, by an event type that the last release knows; fund it again."""
    limits: dict[str, Any] = {"overdraft_limit": "50.00", "balance_max": None, "velocity": []}
    (await api.put(f"/wallets/{wallet}/limits", json=limits, headers={"If-Match": "*"})).raise_for_status()
    read = (await api.get(f"/wallets/{wallet}")).json()
    receiver = (await api.post("/wallets", json={"user_id": "cleo", "currency": read["currency"]})).json()["id"]
    sent = {"amount": read["available"], "to_wallet_id": receiver}
    (await api.post(f"/wallets/{wallet}/transfer", json=sent)).raise_for_status()
    (await api.post(f"/wallets/{wallet}/fund", json={"amount": "60.00"})).raise_for_status()


HOLD_EVENTS = 6
"""Three holds, and the end of each."""
REVERSALS = 2
"""Of a transfer, and of a fund in part."""
LIMIT_EVENTS = 2
"""The limits, and the transfer that overdraws the wallet."""


async def new_changes_of_holds(api: AsyncClient, wallet: str) -> None:
    """Place three holds; capture one, void one, and let the third one expire."""
    for act, body in [("capture", {"amount": "0.20"}), ("void", {})]:
        hold = await api.post(f"/wallets/{wallet}/holds", json={"amount": "0.50"})
        (await api.post(f"{hold.headers['location']}/{act}", json=body)).raise_for_status()
    (await api.post(f"/wallets/{wallet}/holds", json={"amount": "0.50", "expires_in": 1})).raise_for_status()


async def new_reversals(api: AsyncClient, wallet: str, other: str) -> None:
    requests = [("transfer", {"to_wallet_id": other}, {}), ("fund", {}, {"amount": "0.40"})]
    for name, body, part in requests:
        made = await api.post(f"/wallets/{wallet}/{name}", json={"amount": "1.00", **body})
        path = f"/transactions/{made.raise_for_status().json()['transaction_id']}/reverse"
        (await api.post(path, json={"reason": "a test", **part})).raise_for_status()


# It starts five processes.
@pytest.mark.timeout(180)
async def test_a_consumer_of_the_last_release_makes_dead_letters_of_new_event_types_and_a_retry_heals_them(
    pipeline: Pipeline, last_release: dict[str, str]
) -> None:
    """The order of an upgrade avoids it: consumers come before APIs."""
    owner, operator = pipeline.environment, pipeline.environment_of(Role.OPERATOR)
    await walletctl("db", "migrate", **owner)
    created = await walletctl("keys", "create", "--name=traffic", f"--scopes={','.join(SCOPES)}", **owner)
    pipeline.api_key = created.split()[-1]
    for name in COMMANDS:
        await pipeline.add(name, **(last_release if name == "history-consumer" else {}))
    async with pipeline.client("wallet-api") as api:
        wallet, other = await create_wallets(api, 2)
        await new_balances_below_zero(api, other)
        await new_changes_of_holds(api, other)
        await new_reversals(api, wallet, other)
        for name, body in new_operations(other).items():
            (await api.post(f"/wallets/{wallet}/{name}", json=body)).raise_for_status()
        # It goes on with later events of the wallet; the history has a gap until then.
        (await api.post(f"/wallets/{wallet}/fund", json={"amount": "2.00"})).raise_for_status()

    async def letters() -> list[str]:
        listed = json.loads(await walletctl("history", "dead-letters", "list", "--json", **operator))["items"]
        return [letter["reason"] for letter in listed]

    async def all_are_there() -> bool:
        return len(await letters()) == HOLD_EVENTS + REVERSALS + LIMIT_EVENTS + len(new_operations(other))

    await pipeline.eventually(all_are_there, 60)
    # An older release takes no balance below zero.
    assert Counter(await letters())["wrong-shape"] == 1
    assert set(await letters()) == {"unknown-type", "wrong-shape"}
    await walletctl("history", "dead-letters", "retry", "--all", **operator)
    assert await letters() == []
    await wait_until_complete(pipeline, [wallet, other])
    await assert_verified(pipeline)
