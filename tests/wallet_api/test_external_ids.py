"""The client's own ids of transactions: each wallet takes each id once, for ever."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from support.limits import LIMITLESS
from wallet_api.bodies import OperationBody
from wallet_api.operations.catalogue import ALL_OPERATIONS
from wallet_api.use_cases import external_id_queries

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertPromisesKept = Callable[[], Awaitable[None]]

WRITTEN = "SELECT (SELECT count(*) FROM wallet.wallet_transactions), (SELECT count(*) FROM wallet.outbox)"


async def ask(client: AsyncClient, path: str, body: Json) -> Response:
    method = "PUT" if path.endswith("/limits") else "POST"
    return await client.request(method, path, json=body, headers={"If-Match": "*"})


async def requests_of(client: AsyncClient, ada: str, bob: str) -> dict[str, tuple[str, Json]]:
    """Return a request for each operation whose acting wallet is ada's, in an order in which all are done."""
    hold = f"/wallets/{ada}/holds"
    placed = [(await client.post(hold, json={"amount": "1"})).headers["location"] for _ in range(2)]
    why, to_bob, path = {"reason": "a test"}, {"to_wallet_id": bob}, f"/wallets/{ada}"
    (first,) = (await client.get(f"/transactions?wallet_id={ada}&order=asc&limit=1")).json()["items"]
    return {
        "fund": (f"{path}/fund", {"amount": "1"}),
        "withdraw": (f"{path}/withdraw", {"amount": "1"}),
        "transfer": (f"{path}/transfer", {"amount": "1", **to_bob}),
        "split": (f"{path}/split", {"legs": [{"amount": "1", **to_bob}]}),
        "holds": (f"{path}/holds", {"amount": "1", "expires_in": 1, **to_bob}),
        "capture": (f"{placed[0]}/capture", {}),
        "void": (f"{placed[1]}/void", {}),
        "reverse": (f"/transactions/{first['transaction_id']}/reverse", {"amount": "1", **why}),
        "limits": (f"{path}/limits", LIMITLESS),
        "freeze": (f"{path}/freeze", {"blocks": "in", **why}),
        "unfreeze": (f"{path}/unfreeze", why),
        "close": (f"{path}/close", {"sweep_to_wallet_id": bob, **why}),
        "reopen": (f"{path}/reopen", why),
    }


async def test_each_operation_takes_an_external_id_once_and_says_who_has_it(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    """Whatever has happened to the wallet since. It is in the reply, the ledger, the event and the look-ups."""
    ada, bob = (await new_wallet(balance="50"))["id"], (await new_wallet("bob"))["id"]
    requests = await requests_of(client, ada, bob)
    assert requests.keys() == {operation.name for operation in ALL_OPERATIONS}
    made: dict[str, Json] = {}
    for name, (path, body) in requests.items():
        if name == "close":
            await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE status = 'open'")
        reply = await ask(client, path, {**body, "external_id": f"my {name}"})
        assert reply.is_success, reply.text
        made[name] = reply.json()
        assert made[name]["external_id"] == f"my {name}"
    before = await sql(WRITTEN)
    for name, (path, body) in requests.items():
        for changed in (body, {**body, "reference": "another request"}):
            refused = await ask(client, path, {**changed, "external_id": f"my {name}"})
            problem = assert_problem(refused, 409, "external-id-taken")
            assert problem["transaction_id"] == made[name]["transaction_id"]
            assert f"my {name}" in problem["detail"]
    assert await sql(WRITTEN) == before
    entries = (await client.get(f"/wallets/{ada}/transactions?limit=100")).json()["items"]
    told = {entry["external_id"]: entry["transaction_id"] for entry in entries if entry["external_id"]}
    assert told == {f"my {name}": done["transaction_id"] for name, done in made.items()}
    events = await sql("SELECT payload FROM wallet.outbox WHERE event_type <> 'WALLET_CREATED'")
    payloads = [json.loads(event["payload"]) for event in events]
    assert {each["external_id"]: each["transaction_id"] for each in payloads if "external_id" in each} == told
    # The overdue hold's release and the sweep are transactions of their own, without an external id.
    assert sum("external_id" not in each for each in payloads) == 5
    for name, done in made.items():
        found = (await client.get(f"/transactions/{done['transaction_id']}")).json()
        assert found["external_id"] == f"my {name}"
        listed = await client.get("/transactions", params={"external_id": f"my {name}"})
        assert listed.json()["items"] == [found]
    assert (await client.get(f"/holds/{made['holds']['hold']['id']}")).json()["external_id"] == "my holds"


async def test_another_wallet_may_have_the_same_external_id_and_the_receiver_does_not_get_it(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    ada, bob = await new_wallet(balance="5"), await new_wallet("bob", balance="5")
    for payer, receiver in ((ada, bob), (bob, ada)):
        body = {"amount": "1", "to_wallet_id": receiver["id"], "external_id": "order 1"}
        assert (await client.post(f"/wallets/{payer['id']}/transfer", json=body)).status_code == 200
    entries = "SELECT external_id FROM wallet.wallet_transactions WHERE type = 'TRANSFER' ORDER BY entry, wallet_id"
    assert [row["external_id"] for row in await sql(entries)] == ["order 1", "order 1", None, None]


@pytest.mark.parametrize("act", ["fund", "transfer"])
async def test_of_many_requests_at_once_with_one_external_id_one_is_done(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
    act: str,
) -> None:
    """In one batch and in two processes, with locks and without, beside other requests for the same wallet."""
    ada, bob = await new_wallet(balance="50"), await new_wallet("bob")
    path, body = f"/wallets/{ada['id']}/{act}", {"amount": "1", "to_wallet_id": bob["id"]}
    if act == "fund":
        del body["to_wallet_id"]
    async with open_client(version_attempts_max=100) as other, open_client(version_attempts_max=100) as third:
        sent = [
            client_.post(path, json={**body, **extra})
            for _ in range(6)
            for client_ in (other, third)
            for extra in ({"external_id": "order 1"}, {})
        ]
        replies = await asyncio.gather(*sent)
    with_id, without = replies[::2], replies[1::2]
    assert {reply.status_code for reply in without} == {200}
    (done,) = (reply for reply in with_id if reply.status_code == 200)
    for reply in with_id:
        if reply is not done:
            problem = assert_problem(reply, 409, "external-id-taken")
            assert problem["transaction_id"] == done.json()["transaction_id"]
    found = await client.get("/transactions", params={"external_id": "order 1", "wallet_id": ada["id"]})
    assert [item["transaction_id"] for item in found.json()["items"]] == [done.json()["transaction_id"]]
    await assert_promises_kept()


async def test_the_reply_to_the_same_key_comes_before_the_external_id(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, sql: Sql
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    body, key = {"amount": "1", "external_id": "order 1"}, {"Idempotency-Key": "k"}
    first = await client.post(path, json=body, headers=key)
    again = await client.post(path, json=body, headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    # The external id belongs to the request. The key is forgotten after a week, the external id never.
    changed = await client.post(path, json={**body, "external_id": "order 2"}, headers=key)
    assert_problem(changed, 422, "idempotency-key-reused")
    await sql("DELETE FROM wallet.idempotency_keys")
    assert_problem(await client.post(path, json=body, headers=key), 409, "external-id-taken")
    # The refusal is decided: it is the reply to the key from now on.
    refused = await client.post(path, json=body, headers=key)
    assert_problem(refused, 409, "external-id-taken")
    assert refused.headers["idempotent-replayed"] == "true"


async def test_a_taken_external_id_is_told_before_all_that_the_first_request_may_have_changed_and_only_to_the_owner(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    ada = await new_wallet()
    path, body = f"/wallets/{ada['id']}/fund", {"amount": "1", "external_id": "order 1"}
    await client.post(path, json=body, headers={"If-Match": '"1"'})
    await client.post(f"/wallets/{ada['id']}/freeze", json={"blocks": "all", "reason": "a test"})
    for headers in ({}, {"If-Match": '"1"'}):
        assert_problem(await client.post(path, json=body, headers=headers), 409, "external-id-taken")
    unused = {**body, "external_id": "order 2"}
    assert_problem(await client.post(path, json=unused, headers={"If-Match": '"1"'}), 412, "version-mismatch")
    assert_problem(await client.post(path, json=unused), 409, "wallet-frozen")
    # A refused request doesn't take its id.
    await client.post(f"/wallets/{ada['id']}/unfreeze", json={"reason": "a test"})
    assert (await client.post(path, json=unused)).status_code == 200


async def test_an_external_id_is_a_text_of_1_to_255_characters(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    for wrong in ("", "x" * 256, "a\0b", 7, ["x"], {"a": 1}):
        refused = await client.post(path, json={"amount": "1", "external_id": wrong})
        problem = assert_problem(refused, 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["external_id"]
    for right in ("x", "x" * 255, " ", "\N{GRINNING FACE}" * 255, "'; DROP TABLE x; --"):
        done = await client.post(path, json={"amount": "1", "external_id": right})
        assert (done.status_code, done.json()["external_id"]) == (200, right)


def test_a_request_without_an_external_id_has_the_hash_that_it_had_before_the_field_was_there() -> None:
    """Stored keys go on matching. Null is the same as none."""
    bodies: list[type[OperationBody]] = [operation.body for operation in ALL_OPERATIONS]
    for body in bodies:
        assert "external_id" in body.model_fields
        nothing: list[Json] = [{}, {"external_id": None}]
        for fields in nothing:
            assert "external_id" not in body.model_construct(**fields).model_dump(mode="json", warnings=False)


async def test_the_index_is_the_last_guard_and_fails_no_other_request_of_the_batch(
    client: AsyncClient,
    new_wallet: NewWallet,
    monkeypatch: pytest.MonkeyPatch,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    """A defect that looks an id up too early is healed: the transaction is run again, and finds it."""
    ada, bob = await new_wallet(balance="9"), await new_wallet("bob", balance="9")
    body: Json = {"amount": "1", "external_id": "order 1"}
    first = await client.post(f"/wallets/{ada['id']}/withdraw", json=body)
    find, looks = external_id_queries.find_taken, 0

    async def find_later(connection: asyncpg.Connection, asked: Sequence[Any]) -> dict[Any, UUID]:
        nonlocal looks
        looks += 1
        return {} if looks == 1 else await find(connection, asked)

    monkeypatch.setattr(external_id_queries, "find_taken", find_later)
    replies = await asyncio.gather(
        client.post(f"/wallets/{bob['id']}/withdraw", json={"amount": "1"}),
        client.post(f"/wallets/{ada['id']}/withdraw", json=body),
        client.post(f"/wallets/{ada['id']}/withdraw", json={"amount": "1"}),
    )
    assert looks > 1
    assert [reply.status_code for reply in replies] == [200, 409, 200]
    problem = assert_problem(replies[1], 409, "external-id-taken")
    assert problem["transaction_id"] == first.json()["transaction_id"]
    await assert_promises_kept()


async def test_commands_without_an_external_id_look_none_up(
    new_wallet: NewWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: Any) -> dict[Any, UUID]:
        raise AssertionError("no command has an external id")

    monkeypatch.setattr(external_id_queries, "find_taken", find)
    assert (await new_wallet(balance="1"))["balance"] == "1.00"
