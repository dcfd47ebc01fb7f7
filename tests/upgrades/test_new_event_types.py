"""A consumer of the last release meets the event types that this release adds."""

import json

import pytest

from common.access.caller import SCOPES
from common.tables.grants import Role
from support.processes import COMMANDS, Pipeline
from support.releases import walletctl
from support.traffic import assert_verified, create_wallets, wait_until_complete

_WHY = {"reason": "a test"}
NEW_OPERATIONS = {
    "withdraw": {"amount": "1.00"},
    "freeze": {"blocks": "all", **_WHY},
    "unfreeze": _WHY,
    "close": _WHY,
    "reopen": _WHY,
}
"""The operations that the last release lacks, each with its body."""


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
        for name, body in NEW_OPERATIONS.items():
            sweep = {"sweep_to_wallet_id": other} if name == "close" else {}
            (await api.post(f"/wallets/{wallet}/{name}", json={**body, **sweep})).raise_for_status()
        # It goes on with later events of the wallet; the history has a gap until then.
        (await api.post(f"/wallets/{wallet}/fund", json={"amount": "2.00"})).raise_for_status()

    async def letters() -> list[str]:
        listed = json.loads(await walletctl("history", "dead-letters", "list", "--json", **operator))["items"]
        return [letter["reason"] for letter in listed]

    async def all_are_there() -> bool:
        return len(await letters()) == len(NEW_OPERATIONS)

    await pipeline.eventually(all_are_there, 60)
    assert set(await letters()) == {"unknown-type"}
    await walletctl("history", "dead-letters", "retry", "--all", **operator)
    assert await letters() == []
    await wait_until_complete(pipeline, [wallet, other])
    await assert_verified(pipeline)
