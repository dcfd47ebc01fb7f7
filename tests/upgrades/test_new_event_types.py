"""A consumer of the last release meets the event types that this release adds."""

import json
from typing import Any

import pytest

from common.access.caller import SCOPES
from common.tables.grants import Role
from support.processes import COMMANDS, Pipeline
from support.releases import walletctl
from support.traffic import assert_verified, create_wallets, wait_until_complete

# A withdrawal, three holds, and the end of two of them: the other one expires.
_NEW_EVENTS = 7


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
        (wallet,) = await create_wallets(api, 1)
        (await api.post(f"/wallets/{wallet}/withdraw", json={"amount": "1.00"})).raise_for_status()
        for act, body in [("capture", {"amount": "0.20", "final": False}), ("void", {})]:
            hold = await api.post(f"/wallets/{wallet}/holds", json={"amount": "0.50"})
            (await api.post(f"{hold.headers['location']}/{act}", json=body)).raise_for_status()
        (await api.post(f"/wallets/{wallet}/holds", json={"amount": "0.50", "expires_in": 1})).raise_for_status()
        # It goes on with later events of the wallet; the history has a gap until then.
        (await api.post(f"/wallets/{wallet}/fund", json={"amount": "2.00"})).raise_for_status()

    async def letters() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            await walletctl("history", "dead-letters", "list", "--json", **operator)
        )["items"]
        return found

    async def all_letters() -> list[dict[str, Any]]:
        found = await letters()
        return found if len(found) == _NEW_EVENTS else []

    assert {letter["reason"] for letter in await pipeline.eventually(all_letters, 60)} == {"unknown-type"}
    await walletctl("history", "dead-letters", "retry", "--all", **operator)
    assert await letters() == []
    await wait_until_complete(pipeline, [wallet])
    await assert_verified(pipeline)
