import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, Response
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from support.limits import put_limits
from wallet_api.batches.bodies import BatchBody
from wallet_api.idempotency.idempotency import request_hash
from wallet_api.operations.catalogue import HOLD_OPERATIONS, OPERATIONS, TRANSACTION_OPERATIONS
from wallet_api.operations.place_hold import PlaceHold
from wallet_api.operations.reverse import Reverse
from wallet_api.operations.set_limits import SetLimits
from wallet_api.operations.split import Split
from wallet_api.operations.transfer import Transfer

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
Eventually = Callable[..., Awaitable[Any]]

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=8,
)
BODIES = st.dictionaries(TEXT, VALUES, max_size=5)


def reordered(value: Any) -> Any:
    """Return the same JSON value with the keys of each object in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(BODIES)
def test_the_order_of_keys_does_not_make_another_request(body: Json) -> None:
    assert request_hash("POST", "/wallets", body) == request_hash("POST", "/wallets", reordered(body))


@given(BODIES, BODIES)
def test_any_other_value_makes_another_request(one: Json, other: Json) -> None:
    same_text = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    same_hash = request_hash("POST", "/wallets", one) == request_hash("POST", "/wallets", other)
    assert same_hash == same_text


def test_the_method_and_the_path_belong_to_the_request_and_do_not_run_together() -> None:
    hashes = {
        request_hash(method, path, body)
        for method, path, body in [("POST", "/a", {}), ("PUT", "/a", {}), ("POST", "/a/", {}), ("POST", "/a", {"a": 1})]
    }
    assert len(hashes) == 4
    assert all(len(digest) == 32 for digest in hashes)


async def counts(sql: Sql) -> dict[str, int]:
    (row,) = await sql(
        "SELECT (SELECT count(*) FROM wallet.wallets) AS wallets, (SELECT count(*) FROM wallet.outbox) AS events,"
        " (SELECT count(*) FROM wallet.wallet_transactions) AS entries,"
        " (SELECT count(*) FROM wallet.idempotency_keys) AS keys"
    )
    return dict(row)


def keyed(key: str = "k") -> dict[str, str]:
    return {"Idempotency-Key": key}


async def place_hold(client: AsyncClient, wallet_id: str, amount: str) -> str:
    placed = await client.post(f"/wallets/{wallet_id}/holds", json={"amount": amount})
    return str(placed.headers["location"])


@pytest.fixture
async def requests(client: AsyncClient, new_wallet: NewWallet) -> dict[str, tuple[str, Json]]:
    """One request for each POST route, and one for each refusal that is decided."""
    ada, bob, usd = await new_wallet("ada", balance="9"), await new_wallet("bob"), await new_wallet(currency="USD")
    full = await new_wallet(balance="92233720368547758.07", external_id="main")
    hold, voided = [await place_hold(client, ada["id"], "1") for _ in range(2)]
    await client.post(f"{voided}/void", json={})
    funds = [await client.post(f"/wallets/{ada['id']}/fund", json={"amount": "2"}) for _ in range(2)]
    fund, reversed_fund = [f"/transactions/{done.json()['transaction_id']}/reverse" for done in funds]
    reversal = await client.post(reversed_fund, json={"reason": "a test"})
    await client.post(fund, json={"reason": "a test", "amount": "1.50"})
    await client.post(f"/wallets/{ada['id']}/withdraw", json={"amount": "0.50"})
    path, to_bob = f"/wallets/{ada['id']}", {"to_wallet_id": bob["id"]}
    why = {"reason": "a test"}
    frozen, closed = await new_wallet(), await new_wallet()
    await client.post(f"/wallets/{frozen['id']}/freeze", json={"blocks": "all", **why})
    await client.post(f"/wallets/{closed['id']}/close", json=why)
    limited = await new_wallet(balance="5")
    each = {"id": "each", "direction": "out", "window": "transaction", "amount": "1"}
    await put_limits(client, limited, velocity=[each])
    return {
        "create": ("/wallets", {"user_id": "ada", "currency": "EUR", "external_id": "x", "metadata": {"a": [1.5]}}),
        "fund": (f"{path}/fund", {"amount": 5, "reference": "é", "metadata": {"a": 1}}),
        "withdraw": (f"{path}/withdraw", {"amount": "5", "reference": "payout"}),
        "transfer": (f"{path}/transfer", {"amount": "5", **to_bob}),
        "split": (f"{path}/split", {"amount": "5", "legs": [{**to_bob, "amount": "rest"}]}),
        "holds": (f"{path}/holds", {"amount": "5", "capture_max": "6.0", "expires_in": 60, **to_bob}),
        "capture": (f"{hold}/capture", {"amount": "0.50", "final": False}),
        "void": (f"{hold}/void", {"reason": "no show"}),
        "reverse": (fund, {"amount": "0.2", "reference": "case 7", **why}),
        "freeze": (f"{path}/freeze", {"blocks": "in", **why, "reference": "ticket 12"}),
        "unfreeze": (f"/wallets/{frozen['id']}/unfreeze", why),
        "close": (f"/wallets/{bob['id']}/close", why),
        "reopen": (f"/wallets/{closed['id']}/reopen", why),
        "wallet-frozen": (f"/wallets/{frozen['id']}/fund", {"amount": "1"}),
        "wallet-closed": (f"/wallets/{closed['id']}/fund", {"amount": "1"}),
        "wallet-not-frozen": (f"{path}/unfreeze", why),
        "wallet-not-closed": (f"{path}/reopen", why),
        "wallet-not-empty": (f"{path}/close", why),
        "external-id-taken": ("/wallets", {"user_id": full["user_id"], "currency": "EUR", "external_id": "main"}),
        "insufficient-funds": (f"{path}/transfer", {"amount": "8.01", **to_bob}),
        "hold-not-open": (f"{voided}/capture", {}),
        "capture-exceeds-hold": (f"{hold}/capture", {"amount": "1.01"}),
        "not-reversible": (f"/transactions/{reversal.json()['transaction_id']}/reverse", why),
        "already-reversed": (reversed_fund, why),
        "reversal-exceeds-original": (fund, {"amount": "0.51", **why}),
        "same-wallet": (f"{path}/transfer", {"amount": "1", "to_wallet_id": ada["id"]}),
        "currency-mismatch": (f"{path}/transfer", {"amount": "1", "to_wallet_id": usd["id"]}),
        "limit-exceeded": (f"/wallets/{limited['id']}/withdraw", {"amount": "2"}),
        "balance-limit-exceeded": (f"/wallets/{full['id']}/fund", {"amount": "0.01"}),
        "validation-error": (f"{path}/fund", {"amount": "1.001"}),
    }


DONE = ["create", *(operation.name for operation in OPERATIONS + HOLD_OPERATIONS + TRANSACTION_OPERATIONS)]
REFUSED = [
    "wallet-frozen",
    "wallet-closed",
    "wallet-not-frozen",
    "wallet-not-closed",
    "wallet-not-empty",
    "external-id-taken",
    "insufficient-funds",
    "hold-not-open",
    "capture-exceeds-hold",
    "not-reversible",
    "already-reversed",
    "reversal-exceeds-original",
    "same-wallet",
    "currency-mismatch",
    "limit-exceeded",
    "balance-limit-exceeded",
    "validation-error",
]


@pytest.mark.parametrize("name", DONE + REFUSED)
async def test_the_same_request_with_the_same_key_gets_the_same_bytes_and_has_no_second_effect(
    client: AsyncClient, sql: Sql, requests: dict[str, tuple[str, Json]], name: str
) -> None:
    path, body = requests[name]
    before = await counts(sql)
    first = await client.post(path, json=body, headers=keyed())
    after = await counts(sql)
    assert first.json().get("code", "done") == ("done" if name in DONE else name)
    assert "idempotent-replayed" not in first.headers
    assert after["events"] == before["events"] + (name in DONE)
    for content in (json.dumps(body), json.dumps(reordered(body), indent=4)):
        headers = {**keyed(), "Content-Type": "application/json"}
        again = await client.post(path, content=content, headers=headers)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert {**again.headers} == {**first.headers, "idempotent-replayed": "true"}
    assert await counts(sql) == after


@pytest.mark.parametrize(
    "spelling",
    [
        '{"amount": "5.00", "to_wallet_id": "BOB"}',
        '{"to_wallet_id": "BOB", "amount": "5.0"}',
        '{"amount": 5, "to_wallet_id": "BOB"}',
        '{"amount": 5.0, "to_wallet_id": "BOB"}',
        '{"amount": "5", "to_wallet_id": "bob", "currency": null, "reference": null, "metadata": {}}',
    ],
)
async def test_a_request_that_is_spelled_otherwise_is_the_same_request(
    client: AsyncClient, sql: Sql, requests: dict[str, tuple[str, Json]], spelling: str
) -> None:
    path, body = requests["transfer"]
    bob = body["to_wallet_id"]
    spelled = spelling.replace("BOB", bob.upper()).replace("bob", bob)
    first = await client.post(path, json=body, headers=keyed())
    after = await counts(sql)
    wallet_id = path.split("/")[2]
    for target in (path, path.replace(wallet_id, wallet_id.upper()), path.replace("0", "%30").replace("fer", "%66er")):
        headers = {**keyed(), "Content-Type": "application/json", "If-Match": '"99"'}
        again = await client.post(target, content=spelled, headers=headers)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    assert await counts(sql) == after


def hash_of(model: type[BaseModel], body: Json) -> bytes:
    return request_hash("POST", "/", model.model_validate(body).model_dump(mode="json"))


ID = "0198c2a5-0000-7000-8000-000000000001"
BATCHED = {"op": "transfer", "wallet_id": ID, "to_wallet_id": ID}
LIMITS = {"overdraft_limit": "1", "balance_max": "1", "velocity": []}
VELOCITY = {"id": "daily", "direction": "out", "window": "day"}


@pytest.mark.parametrize(
    ("model", "body_with"),
    [
        (Transfer.body, lambda amount: {"to_wallet_id": ID, "amount": amount}),
        (PlaceHold.body, lambda amount: {"amount": "1", "capture_max": amount}),
        (Split.body, lambda amount: {"legs": [{"to_wallet_id": ID, "amount": amount}]}),
        (Reverse.body, lambda amount: {"reason": "r", "legs": [{"to_wallet_id": ID, "amount": amount}]}),
        (SetLimits.body, lambda amount: {**LIMITS, "balance_max": amount}),
        (SetLimits.body, lambda amount: {**LIMITS, "velocity": [{**VELOCITY, "amount": amount}]}),
        (BatchBody, lambda amount: {"atomic": True, "operations": [{**BATCHED, "amount": amount}]}),
    ],
)
def test_an_amount_anywhere_in_a_body_is_the_same_however_it_is_spelled(
    model: type[BaseModel], body_with: Callable[[str], Json]
) -> None:
    """Other amounts, and other texts in metadata, make another request."""
    assert len({hash_of(model, body_with(amount)) for amount in ("1", "1.0", "1.00", "1.000")}) == 1
    assert len({hash_of(model, body_with(amount)) for amount in ("1", "10", "1.01", "rest")}) == 4
    if model is not BatchBody:
        assert hash_of(model, {**body_with("1"), "metadata": {"amount": "1.0"}}) != hash_of(
            model, {**body_with("1"), "metadata": {"amount": "1"}}
        )


def test_the_order_of_legs_belongs_to_the_request() -> None:
    legs = [{"to_wallet_id": ID, "amount": amount} for amount in ("1", "2")]
    assert hash_of(Split.body, {"legs": legs}) != hash_of(Split.body, {"legs": legs[::-1]})


async def test_a_split_that_is_spelled_otherwise_is_the_same_request(
    client: AsyncClient, requests: dict[str, tuple[str, Json]]
) -> None:
    path, body = requests["split"]
    (leg,) = body["legs"]
    first = await client.post(path, json={"legs": [{**leg, "amount": "5"}]}, headers=keyed())
    for amount in ("5.00", 5, 5.0):
        again = await client.post(path, json={"legs": [{**leg, "amount": amount}], "amount": None}, headers=keyed())
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "5.01"},
        {"amount": "50"},
        {"currency": "EUR"},
        {"reference": "rent"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": 1.0}},
    ],
)
async def test_a_request_that_asks_for_something_else_is_another_request(
    client: AsyncClient, requests: dict[str, tuple[str, Json]], assert_problem: AssertProblem, changes: Json
) -> None:
    path, body = requests["transfer"]
    await client.post(path, json={**body, "metadata": {"a": True}}, headers=keyed())
    again = await client.post(path, json={**body, "metadata": {"a": True}, **changes}, headers=keyed())
    assert_problem(again, 422, "idempotency-key-reused")


def test_the_spelling_of_a_number_in_metadata_is_kept_and_so_belongs_to_the_request() -> None:
    bodies: list[Json] = [{"metadata": {"a": number}} for number in (1, 1.0, True, "1")]
    assert len({request_hash("POST", "/wallets", body) for body in bodies}) == 4


@pytest.mark.parametrize("status", ["frozen", "closed"])
async def test_a_refusal_for_the_wallets_status_is_decided_and_stays_so(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet, assert_problem: AssertProblem, status: str
) -> None:
    wallet = await new_wallet()
    post: Json = {"url": f"/wallets/{wallet['id']}/fund", "json": {"amount": "1"}}
    await sql("UPDATE wallet.wallets SET status = $1", status)
    assert_problem(await client.post(**post, headers=keyed()), 409, f"wallet-{status}")
    await sql("UPDATE wallet.wallets SET status = 'active'")
    assert_problem(await client.post(**post, headers=keyed()), 409, f"wallet-{status}")
    assert (await client.post(**post, headers=keyed("another"))).status_code == 200


async def test_no_refusal_changes_a_version_a_balance_or_a_hold(
    client: AsyncClient, sql: Sql, requests: dict[str, tuple[str, Json]]
) -> None:
    """blnk#374: money moved, and the reply was 409."""
    ada = requests["fund"][0].removesuffix("/fund")
    overdue = await place_hold(client, ada.removeprefix("/wallets/"), "1")
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE id = $1", UUID(overdue[len("/holds/") :]))
    refusals = {name: requests[name] for name in REFUSED} | {
        "hold-expired": (f"{overdue}/capture", {}),
        "wallet-not-found": (f"/wallets/{UUID(int=0)}/fund", {"amount": "1"}),
        "hold-not-found": (f"/holds/{UUID(int=0)}/void", {}),
        "transaction-not-found": (f"/transactions/{UUID(int=0)}/reverse", {"reason": "a test"}),
        "version-mismatch": (f"{ada}/fund", {"amount": "1"}),
    }

    async def state() -> list[Any]:
        tables = ("wallets", "holds", "velocity_limits")
        return [await counts(sql), *[await sql(f"SELECT * FROM wallet.{table} ORDER BY 1, 2") for table in tables]]

    before = await state()
    for name, (path, body) in refusals.items():
        headers = {"If-Match": '"99"'} if name == "version-mismatch" else {}
        refused = await client.post(path, json=body, headers=headers)
        assert (refused.status_code // 100, refused.json()["code"]) == (4, name)
        assert await state() == before, name


async def test_a_refusal_is_replayed_and_says_so_and_a_new_attempt_needs_a_new_key(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    """midaz#709: the key of a denied request could not be used again, and no reply said why."""
    path = f"/wallets/{(await new_wallet(balance='1'))['id']}"
    refused = await client.post(f"{path}/withdraw", json={"amount": "2"}, headers=keyed())
    assert_problem(refused, 422, "insufficient-funds")
    assert "idempotent-replayed" not in refused.headers
    await client.post(f"{path}/fund", json={"amount": "1"})
    again = await client.post(f"{path}/withdraw", json={"amount": "2"}, headers=keyed())
    assert (again.status_code, again.content) == (422, refused.content)
    assert again.headers["idempotent-replayed"] == "true"
    done = await client.post(f"{path}/withdraw", json={"amount": "2"}, headers=keyed("another"))
    assert (done.status_code, done.json()["balance"]) == (200, "0.00")


@pytest.mark.parametrize("name", DONE + REFUSED)
async def test_a_key_stands_for_one_request_only(
    client: AsyncClient,
    sql: Sql,
    requests: dict[str, tuple[str, Json]],
    assert_problem: AssertProblem,
    name: str,
) -> None:
    path, body = requests[name]
    first = await client.post(path, json=body, headers=keyed())
    after = await counts(sql)
    other_path, other_body = requests["fund" if name != "fund" else "transfer"]
    for target, document in [(path, {**body, "metadata": {"other": 1}}), (other_path, other_body)]:
        response = await client.post(target, json=document, headers=keyed())
        assert_problem(response, 422, "idempotency-key-reused")
    assert await counts(sql) == after
    assert (await client.post(path, json=body, headers=keyed())).content == first.content


async def test_a_body_that_is_refused_before_its_key_is_claimed_leaves_the_key_free(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    assert_problem(await client.post(path, json={}, headers=keyed()), 422, "validation-error")
    assert (await counts(sql))["keys"] == 0
    assert (await client.post(path, json={"amount": "1"}, headers=keyed())).status_code == 200


async def test_a_missing_wallet_is_not_remembered_and_the_key_works_once_it_is_there(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet_id, ada = uuid4(), await new_wallet(balance="5")
    posts = [
        (f"/wallets/{wallet_id}/fund", {"amount": "1"}),
        (f"/wallets/{ada['id']}/transfer", {"amount": "1", "to_wallet_id": str(wallet_id)}),
    ]
    for path, body in posts:
        assert_problem(await client.post(path, json=body, headers=keyed(path)), 404, "wallet-not-found")
    assert (await counts(sql))["keys"] == 0
    await sql("INSERT INTO wallet.wallets (id, user_id, currency) VALUES ($1, 'bob', 'EUR')", wallet_id)
    for path, body in posts:
        assert (await client.post(path, json=body, headers=keyed(path))).status_code == 200


async def test_a_version_mismatch_is_not_remembered(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    stale = {**keyed(), "If-Match": '"2"'}
    assert_problem(await client.post(path, json={"amount": "1"}, headers=stale), 412, "version-mismatch")
    assert (await client.post(path, json={"amount": "1"})).json()["version"] == 2
    assert (await client.post(path, json={"amount": "1"}, headers=stale)).json()["version"] == 3


@pytest.mark.parametrize("act", ["fund", "transfer"])
async def test_a_busy_wallet_is_not_remembered(
    open_client: OpenClient,
    sql: Sql,
    new_wallet: NewWallet,
    database_url: str,
    assert_problem: AssertProblem,
    act: str,
) -> None:
    ada, bob = await new_wallet("ada", balance="5"), await new_wallet("bob")
    path, body = f"/wallets/{ada['id']}/{act}", {"amount": "1"}
    if act == "transfer":
        body["to_wallet_id"] = bob["id"]
    holder = await asyncpg.connect(database_url)
    async with open_client(busy_retry_seconds=0.1) as hasty:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            refused = await hasty.post(path, json=body, headers=keyed())
        assert_problem(refused, 409, "wallet-busy")
        assert refused.headers["retry-after"] == "1"
        assert (await counts(sql))["keys"] == 0
        done = await hasty.post(path, json=body, headers=keyed())
        assert (done.status_code, "idempotent-replayed" in done.headers) == (200, False)
    await holder.close()


@pytest.mark.parametrize("name", ["create", "fund", "transfer", "insufficient-funds"])
async def test_twenty_requests_at_once_with_one_key_have_one_effect_and_one_answer(
    open_client: OpenClient,
    sql: Sql,
    requests: dict[str, tuple[str, Json]],
    name: str,
) -> None:
    path, body = requests[name]
    before = await counts(sql)
    settings = {
        "busy_retry_seconds": 30,
        "statement_timeout_seconds": 60,
        "transaction_timeout_seconds": 60,
        "request_deadline_seconds": 60,
        "pool_timeout_seconds": 30,
    }
    async with open_client(**settings) as one, open_client(**settings) as other:
        answers = await asyncio.gather(
            *(each.post(path, json=body, headers=keyed()) for each in [one, other] for _ in range(10))
        )
    assert {answer.status_code for answer in answers} == {{"create": 201, "insufficient-funds": 422}.get(name, 200)}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count(None) == 1
    after = await counts(sql)
    assert after["events"] == before["events"] + (name in DONE)
    assert after["keys"] == before["keys"] + 1


async def test_a_key_in_flight_for_too_long_is_told_to_come_again_and_then_answered(
    open_client: OpenClient, new_wallet: NewWallet, database_url: str, assert_problem: AssertProblem
) -> None:
    path, body = f"/wallets/{(await new_wallet())['id']}/fund", {"amount": "1"}
    holder = await asyncpg.connect(database_url)
    async with open_client(busy_retry_seconds=0.1) as hasty:
        claiming = holder.transaction()
        await claiming.start()
        await holder.execute("INSERT INTO wallet.idempotency_keys (key, request_hash) VALUES ('k', '')")
        refused = await hasty.post(path, json=body, headers=keyed())
        assert_problem(refused, 409, "idempotency-key-in-flight")
        assert refused.headers["retry-after"] == "1"
        assert (await hasty.post(path, json=body, headers=keyed("another"))).status_code == 200
        await claiming.rollback()
        assert (await hasty.post(path, json=body, headers=keyed())).status_code == 200
    await holder.close()


async def test_a_key_that_another_session_writes_meanwhile_is_answered_as_that_one_has_it(
    open_client: OpenClient,
    sql: Sql,
    new_wallet: NewWallet,
    database_url: str,
    until_blocked: Callable[..., Awaitable[None]],
    patient: dict[str, float],
) -> None:
    path, body = f"/wallets/{(await new_wallet())['id']}/fund", {"amount": "1"}
    digest = request_hash("POST", path, {"amount": "1", "currency": None, "metadata": {}, "reference": None})
    before = await counts(sql)
    holder = await asyncpg.connect(database_url)
    async with open_client(**patient) as client:
        async with holder.transaction():
            await holder.execute(
                "INSERT INTO wallet.idempotency_keys (key, request_hash, reply_status, reply_headers, reply_body)"
                " VALUES ('k', $1, 200, '{}', 'theirs')",
                digest,
            )
            ours = asyncio.create_task(client.post(path, json=body, headers=keyed()))
            await until_blocked()
        answer = await ours
    await holder.close()
    assert (answer.status_code, answer.content) == (200, b"theirs")
    assert answer.headers["idempotent-replayed"] == "true"
    assert await counts(sql) == {**before, "keys": before["keys"] + 1}


async def test_a_request_waits_for_the_one_with_its_key_and_gets_that_ones_answer(
    open_client: OpenClient,
    sql: Sql,
    new_wallet: NewWallet,
    database_url: str,
    eventually: Eventually,
    until_blocked: Callable[..., Awaitable[None]],
    retries: Callable[[str], float],
    patient: dict[str, float],
) -> None:
    wallet = await new_wallet()
    path, body = f"/wallets/{wallet['id']}/fund", {"amount": "1"}
    holder, tries = await asyncpg.connect(database_url), retries("idempotency-key-in-flight")

    async def tried_again() -> bool:
        return retries("idempotency-key-in-flight") > tries + 2

    async with open_client(**patient) as one, open_client(**patient) as other:
        # The first request waits for its wallet; the second one is retried until the first one has its reply.
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            first = asyncio.create_task(one.post(path, json=body, headers=keyed()))
            await until_blocked()
            second = asyncio.create_task(other.post(path, json=body, headers=keyed()))
            await eventually(tried_again)
        answers = await asyncio.gather(first, second)
    await holder.close()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    (row,) = await sql("SELECT balance_minor FROM wallet.wallets WHERE id = $1", UUID(wallet["id"]))
    assert row["balance_minor"] == 100


async def test_an_effect_and_its_key_are_committed_together_or_not_at_all(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="1")
    before = await counts(sql)
    post: Json = {"url": f"/wallets/{wallet['id']}/fund", "json": {"amount": "1"}, "headers": keyed()}
    # The very last statement of the request fails.
    await sql("ALTER TABLE wallet.idempotency_keys ADD CONSTRAINT broken CHECK (reply_status IS NULL)")
    assert (await client.post(**post)).status_code == 500
    assert await counts(sql) == before
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet
    await sql("ALTER TABLE wallet.idempotency_keys DROP CONSTRAINT broken")
    assert (await client.post(**post)).json()["balance"] == "2.00"


async def test_a_repeated_key_is_answered_as_it_was_whatever_happened_since(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="1")
    post: Json = {"url": f"/wallets/{wallet['id']}/fund", "json": {"amount": "1"}, "headers": keyed()}
    first = await client.post(**post)
    await client.post(**{**post, "headers": keyed("another")})
    again = await client.post(**post)
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
