"""Which caller may do what to whose wallets, and that a stranger's wallet is like one that does not exist."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import FUNDS_WRITE, OPS_WRITE, SCOPES, WALLETS_READ, WALLETS_WRITE
from common.access.key_acts import create_key, rotate_key
from common.http.authentication import OPEN_PATHS
from support.api_keys import KEY, bearer
from support.callers import Headers, believe_callers, credentials, one_of_each, routes_of
from support.limits import LIMITLESS
from wallet_api.app import create_app
from wallet_api.commands import IdempotencyKey
from wallet_api.idempotency.key_queries import claim_keys
from wallet_api.operations.catalogue import OPERATIONS
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
ADMIN, ADA, BOB = credentials("admin"), credentials("key-of-ada", "ada"), credentials("key-of-bob", "bob")


@dataclass(frozen=True)
class Row:
    """What a route needs, and what the caller of another user gets from it. Of several scopes it needs one."""

    scope: str | tuple[str, ...]
    status: int
    status_for_another_user: int
    body: Json | None = None
    query: str = ""
    headers: Headers = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        return (self.scope,) if isinstance(self.scope, str) else self.scope


ROWS = {
    ("POST", "/wallets"): Row(WALLETS_WRITE, 201, 403, {"user_id": "ada", "currency": "EUR"}),
    ("POST", "/wallets/{wallet_id}/fund"): Row(FUNDS_WRITE, 200, 404, {"amount": "1"}),
    ("POST", "/wallets/{wallet_id}/withdraw"): Row(FUNDS_WRITE, 200, 404, {"amount": "1"}),
    ("POST", "/wallets/{wallet_id}/transfer"): Row(WALLETS_WRITE, 200, 404, {"amount": "1", "to_wallet_id": ""}),
    ("POST", "/wallets/{wallet_id}/split"): Row(
        WALLETS_WRITE, 200, 404, {"legs": [{"amount": "1", "to_wallet_id": ""}]}
    ),
    ("POST", "/wallets/{wallet_id}/holds"): Row(WALLETS_WRITE, 201, 404, {"amount": "1", "to_wallet_id": ""}),
    ("POST", "/holds/{hold_id}/capture"): Row(WALLETS_WRITE, 200, 404, {}),
    ("POST", "/holds/{hold_id}/void"): Row(WALLETS_WRITE, 200, 404, {}),
    ("POST", "/batches"): Row(
        (WALLETS_WRITE, FUNDS_WRITE, OPS_WRITE),
        200,
        404,
        {
            "atomic": True,
            "operations": [{"op": "transfer", "wallet_id": "", "amount": "0.01", "to_wallet_id": ""}],
        },
    ),
    ("GET", "/holds/{hold_id}"): Row(WALLETS_READ, 200, 404),
    ("GET", "/wallets/{wallet_id}/holds"): Row(WALLETS_READ, 200, 404),
    ("POST", "/wallets/{wallet_id}/freeze"): Row(OPS_WRITE, 200, 404, {"blocks": "all", "reason": "stolen"}),
    ("POST", "/wallets/{wallet_id}/unfreeze"): Row(OPS_WRITE, 409, 404, {"reason": "found"}),
    ("POST", "/wallets/{wallet_id}/close"): Row(OPS_WRITE, 409, 404, {"reason": "left"}),
    ("POST", "/wallets/{wallet_id}/reopen"): Row(OPS_WRITE, 409, 404, {"reason": "is back"}),
    ("PUT", "/wallets/{wallet_id}/limits"): Row(OPS_WRITE, 200, 404, LIMITLESS, headers={"If-Match": "*"}),
    ("GET", "/wallets/{wallet_id}/limits"): Row(WALLETS_READ, 200, 404),
    ("GET", "/wallets/{wallet_id}"): Row(WALLETS_READ, 200, 404),
    ("GET", "/wallets/{wallet_id}/transactions"): Row(WALLETS_READ, 200, 404),
    ("GET", "/wallets/{wallet_id}/balance"): Row(WALLETS_READ, 200, 404),
    ("GET", "/wallets/{wallet_id}/statement"): Row(
        WALLETS_READ, 200, 404, query="?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z"
    ),
    ("GET", "/users/{user_id}/wallets"): Row(WALLETS_READ, 200, 403),
    ("GET", "/transactions/{transaction_id}"): Row(WALLETS_READ, 200, 404),
    ("POST", "/transactions/{transaction_id}/reverse"): Row(OPS_WRITE, 201, 404, {"amount": "0.01", "reason": "x"}),
    # A search that finds nothing has an empty page.
    ("GET", "/transactions"): Row(WALLETS_READ, 200, 200, query="?reference=rent"),
}


@pytest.fixture
async def client(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client whose requests name their callers; without a name, a request is that of an unbound caller."""
    believe_callers(monkeypatch)
    async with open_client(batch_lock_timeout_seconds=0.05, busy_retry_seconds=0.1) as client:
        client.headers.update(ADMIN)
        yield client


@pytest.fixture
async def wallets(client: AsyncClient) -> dict[str, str]:
    """The ids of a wallet of ada, and of a wallet of bob in each state that a reply might tell of."""
    fields: dict[str, tuple[str, str]] = {
        "ada": ("EUR", "1000"),
        "bob": ("EUR", "10"),
        "dollars": ("USD", "10"),
        "empty": ("EUR", "1"),
        "frozen": ("EUR", "10"),
        "closed": ("EUR", "10"),
        "full": ("EUR", "92233720368547758.07"),
    }
    ids, why = {}, {"reason": "a test"}
    for name, (currency, balance) in fields.items():
        body = {"user_id": "ada" if name == "ada" else "bob", "currency": currency}
        ids[name] = (await client.post("/wallets", json=body)).json()["id"]
        assert (await client.post(f"/wallets/{ids[name]}/fund", json={"amount": balance})).status_code == 200
    assert (await client.post(f"/wallets/{ids['frozen']}/freeze", json={"blocks": "in", **why})).status_code == 200
    sweep = {"sweep_to_wallet_id": ids["bob"], **why}
    assert (await client.post(f"/wallets/{ids['closed']}/close", json=sweep)).status_code == 200
    return ids


async def hold_of(client: AsyncClient, wallet_id: str, **fields: str) -> str:
    """Place a hold, and return its id."""
    placed = await client.post(f"/wallets/{wallet_id}/holds", json={"amount": "1", **fields})
    return str(placed.json()["hold"]["id"])


def with_receiver(body: Json, wallet_id: str, own: str = UNKNOWN) -> Json:
    """Return the body with this wallet for each empty receiver, and the caller's own for each acting one."""
    filled = {**body, **({"to_wallet_id": wallet_id} if "to_wallet_id" in body else {})}
    filled |= {"wallet_id": own} if "wallet_id" in body else {}
    names = {"legs", "operations"} & body.keys()
    return filled | {name: [with_receiver(part, wallet_id, own) for part in body[name]] for name in names}


def strangers_of(wallets: Mapping[str, str]) -> Iterator[str]:
    return (wallet_id for name, wallet_id in wallets.items() if name != "ada")


def application() -> FastAPI:
    return create_app(WalletApiSettings(database_url="postgresql://nowhere/x", log_level="warning"))


def test_each_route_has_a_row_and_declares_its_scope_and_no_other_route_is_there() -> None:
    scoped, others = routes_of(application())
    assert scoped == {route: row.scopes for route, row in ROWS.items()}
    assert others <= OPEN_PATHS


def test_each_operation_documents_its_scope_and_its_refusals() -> None:
    document = application().openapi()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    operations = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert operations.keys() == ROWS.keys()
    for route, operation in operations.items():
        assert operation["security"] == [{"bearer": list(ROWS[route].scopes)}]
        assert operation["responses"].keys() >= {"401", "403"}


@pytest.mark.parametrize(("method", "path"), ROWS)
async def test_a_route_answers_each_caller_as_its_row_says(
    open_client: OpenClient, operator: AsyncEngine, method: str, path: str
) -> None:
    row = ROWS[method, path]
    callers = await one_of_each(operator, *row.scopes)
    by_route = {"other user": row.status_for_another_user, "right": row.status, "unbound": row.status}
    async with open_client(auth="keys") as client:
        wallets, transactions = {}, {}
        for user_id in ("ada", "bob"):
            created = await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"}, headers=bearer(KEY))
            wallets[user_id] = created.json()["id"]
            funded = await client.post(f"/wallets/{wallets[user_id]}/fund", json={"amount": "5"}, headers=bearer(KEY))
            transactions[user_id] = funded.json()["transaction_id"]
        ids = {"wallet_id": wallets["ada"], "user_id": "ada", "transaction_id": transactions["ada"]}
        hold, hold_id = {"amount": "0.01", "to_wallet_id": wallets["bob"]}, ""
        body = row.body and with_receiver(row.body, wallets["bob"], wallets["ada"])
        for method_sent in [method, "HEAD"] if method == "GET" else [method]:
            for name, (headers, status) in callers.items():
                if "{hold_id}" in path:
                    placed = await client.post(f"/wallets/{wallets['ada']}/holds", json=hold, headers=bearer(KEY))
                    hold_id = placed.json()["hold"]["id"]
                target = path.format(**ids, hold_id=hold_id) + row.query
                if method == "POST" and path != "/wallets":
                    # A preview needs what the operation needs, and gets the same refusals.
                    preview = await client.post(f"{target}?preview=true", json=body, headers=headers)
                    due = status or by_route[name]
                    assert (name, preview.status_code) == (name, 200 if due == 201 else due)
                reply = await client.request(method_sent, target, json=body, headers={**row.headers, **headers})
                assert (name, reply.status_code) == (name, status or by_route[name])


def as_unknown(reply: Response, wallet_id: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return all of a reply, with the id of the unknown wallet in the place of this one."""
    return reply.status_code, reply.content.replace(wallet_id.encode(), UNKNOWN.encode()), reply.headers.multi_items()


async def assert_like_unknown(
    client: AsyncClient, method: str, path: str, strangers: Iterator[str], **request: Any
) -> Response:
    """Send the request for each of the wallets and for an unknown one; compare the replies byte by byte."""
    unknown = await client.request(method, path.format(UNKNOWN), **request)
    for wallet_id in strangers:
        reply = await client.request(method, path.format(wallet_id), **request)
        assert as_unknown(reply, wallet_id) == as_unknown(unknown, UNKNOWN)
    return unknown


async def test_reads_of_a_strangers_wallet_are_like_those_of_a_wallet_that_does_not_exist(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    reads: list[tuple[str, Headers, int]] = [
        ("/wallets/{}", {}, 404),
        ("/wallets/{}", {"If-None-Match": '"2"'}, 404),
        ("/wallets/{}", {"If-None-Match": "*"}, 404),
        ("/wallets/{}?expand=holds", {}, 404),
        ("/wallets/{}?expand=x", {}, 422),
        ("/wallets/{}/transactions", {}, 404),
        ("/wallets/{}/transactions?limit=1&order=asc", {}, 404),
        ("/wallets/{}/transactions?limit=0", {}, 422),
        ("/wallets/{}/transactions?cursor=x", {}, 422),
        ("/wallets/{}/balance", {}, 404),
        ("/wallets/{}/limits", {}, 404),
        ("/wallets/{}/balance?at=2026-01-01T00:00:00Z", {}, 404),
        ("/wallets/{}/balance?at=2999-01-01T00:00:00Z", {}, 422),
        ("/wallets/{}/balance?version=1", {}, 404),
        ("/wallets/{}/balance?version=99", {}, 404),
        ("/wallets/{}/statement?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z", {}, 404),
        ("/wallets/{}/statement?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z", {"Accept": "text/html"}, 406),
        ("/transactions?wallet_id={}", {}, 200),
        ("/transactions?wallet_id={}&external_id=x", {}, 200),
        ("/transactions?wallet_id={}&metadata[a]=b", {}, 200),
        ("/transactions?wallet_id={}&metadata[a]=b&metadata[a]=b", {}, 422),
        ("/transactions?batch_id={}", {}, 200),
    ]
    for path, headers, status in reads:
        unknown = await assert_like_unknown(client, "GET", path, strangers_of(wallets), headers={**ADA, **headers})
        assert unknown.status_code == status
    own = await client.get(f"/wallets/{wallets['ada']}/transactions", headers=ADA)
    assert [item["amount"] for item in own.json()["items"]] == ["1000.00"]


async def test_a_strangers_hold_is_like_one_that_does_not_exist(client: AsyncClient, wallets: dict[str, str]) -> None:
    """Whether or not the caller is the receiver."""
    holds = [await hold_of(client, wallets["bob"]), await hold_of(client, wallets["bob"], to_wallet_id=wallets["ada"])]
    read = await assert_like_unknown(client, "GET", "/holds/{}", iter(holds), headers=ADA)
    assert read.status_code == 404
    listed = await assert_like_unknown(client, "GET", "/wallets/{}/holds", strangers_of(wallets), headers=ADA)
    assert listed.status_code == 404
    for act, body in product(["capture", "void"], [{}, {"amount": "x"}, {"final": 1}]):
        await assert_like_unknown(client, "POST", f"/holds/{{}}/{act}", iter(holds), json=body, headers=ADA)
    for hold in holds:
        assert (await client.get(f"/holds/{hold}", headers=BOB)).json()["status"] == "open"


async def test_money_that_a_hold_takes_out_of_the_system_needs_the_scope_of_payouts(
    open_client: OpenClient, operator: AsyncEngine, assert_problem: AssertProblem
) -> None:
    created = await create_key(operator, "test", "shop", [WALLETS_WRITE])
    writer = bearer(created.text)
    async with open_client(auth="keys") as client:
        ids = []
        for user_id in ("ada", "bob"):
            wallet = await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"}, headers=bearer(KEY))
            ids.append(wallet.json()["id"])
        ada, bob = ids
        await client.post(f"/wallets/{ada}/fund", json={"amount": "5"}, headers=bearer(KEY))
        path = f"/wallets/{ada}/holds"
        assert_problem(await client.post(path, json={"amount": "1"}, headers=writer), 403, "forbidden")
        payout = (await client.post(path, json={"amount": "1"}, headers=bearer(KEY))).headers["location"]
        assert_problem(await client.post(f"{payout}/capture", json={}, headers=writer), 403, "forbidden")
        assert (await client.post(f"{payout}/void", json={}, headers=writer)).status_code == 200
        sale = await client.post(path, json={"amount": "1", "to_wallet_id": bob}, headers=writer)
        assert (await client.post(f"{sale.headers['location']}/capture", json={}, headers=writer)).status_code == 200


async def test_moving_a_strangers_money_is_refused_like_moving_that_of_a_wallet_that_does_not_exist(
    client: AsyncClient, wallets: dict[str, str], sql: Sql
) -> None:
    """Whatever else is wrong with the request."""
    before = await sql("SELECT id, balance_minor, version FROM wallet.wallets ORDER BY id")
    amounts = ["1", "0", "1.001", "x"]
    currencies = [{}, {"currency": "USD"}, {"currency": "XXX"}]
    if_matches: list[Headers] = [{}, {"If-Match": '"9"'}, {"If-Match": "2"}]
    receivers = [wallets["ada"], wallets["bob"], UNKNOWN[:-1] + "2", "x"]
    statuses = set()
    for name, amount, currency in product(["fund", "withdraw"], amounts, currencies):
        body = {"amount": amount, **currency}
        for query in ("", "?preview=true"):
            reply = await assert_like_unknown(
                client, "POST", f"/wallets/{{}}/{name}{query}", strangers_of(wallets), json=body, headers=ADA
            )
            statuses.add(reply.status_code)
    for (method, path), row in ROWS.items():
        if row.scope == OPS_WRITE:
            route = path.replace("{wallet_id}", "{}").replace("{transaction_id}", "{}")
            headers = {**ADA, **row.headers}
            for body in ({**(row.body or {}), "reference": "x"}, {}):
                reply = await assert_like_unknown(
                    client, method, route, strangers_of(wallets), json=body, headers=headers
                )
                statuses.add(reply.status_code)
    strangers = (wallets["dollars"], wallets["frozen"])
    for amount, if_match, receiver in product(amounts, if_matches, receivers):
        body = {"amount": amount, "to_wallet_id": receiver}
        headers = {**ADA, **if_match, "Idempotency-Key": f"{amount[:5]}-{if_match}-{receiver}".replace(" ", "")}
        reply = await assert_like_unknown(
            client, "POST", "/wallets/{}/transfer", iter(strangers), json=body, headers=headers
        )
        statuses.add(reply.status_code)
    totals = [*amounts, None]
    for total, if_match, receiver, leg_amount in product(totals, if_matches, receivers, ["1", "0", "rest"]):
        split: Json = {"amount": total, "legs": [{"to_wallet_id": receiver, "amount": leg_amount}]}
        headers = {**ADA, **if_match}
        reply = await assert_like_unknown(
            client, "POST", "/wallets/{}/split", iter(strangers[:1]), json=split, headers=headers
        )
        statuses.add(reply.status_code)
    assert statuses == {404, 422}
    assert await sql("SELECT id, balance_minor, version FROM wallet.wallets ORDER BY id") == before
    assert await sql("SELECT FROM wallet.idempotency_keys") == []


async def test_a_strangers_wallet_that_is_locked_is_refused_like_one_that_does_not_exist(
    client: AsyncClient, wallets: dict[str, str], database_url: str
) -> None:
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE", UUID(wallets["bob"]))
        bodies: dict[str, Json] = {
            "fund": {"amount": "1"},
            "withdraw": {"amount": "1"},
            "transfer": {"amount": "1", "to_wallet_id": wallets["ada"]},
            "split": {"amount": "1", "legs": [{"to_wallet_id": wallets["ada"], "amount": "rest"}]},
            "holds": {"amount": "1", "to_wallet_id": wallets["ada"]},
            "freeze": {"blocks": "all", "reason": "stolen"},
            "unfreeze": {"reason": "found"},
            "close": {"reason": "left", "sweep_to_wallet_id": wallets["ada"]},
            "reopen": {"reason": "is back"},
        }
        assert bodies.keys() == {operation.name for operation in OPERATIONS}
        for name, body in bodies.items():
            reply = await assert_like_unknown(
                client, "POST", f"/wallets/{{}}/{name}", iter([wallets["bob"]]), json=body, headers=ADA
            )
            assert reply.status_code == 404
        for sender, receiver, code in [
            (wallets["dollars"], wallets["bob"], "wallet-not-found"),
            (UNKNOWN, wallets["bob"], "wallet-not-found"),
            (wallets["bob"], wallets["bob"], "same-wallet"),
            (UNKNOWN, UNKNOWN, "same-wallet"),
        ]:
            body = {"amount": "1", "to_wallet_id": receiver}
            refused = await client.post(f"/wallets/{sender}/transfer", json=body, headers=ADA)
            assert refused.json()["code"] == code
        owners = await client.post(f"/wallets/{wallets['bob']}/fund", json={"amount": "1"}, headers=BOB)
        assert owners.json()["code"] == "wallet-busy"
    await holder.close()


async def test_an_external_id_of_a_strangers_wallet_is_told_to_nobody(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    body = {"amount": "1", "external_id": "order 1"}
    for name in ("bob", "empty"):
        assert (await client.post(f"/wallets/{wallets[name]}/fund", json=body, headers=BOB)).status_code == 200
    for query in ("", "?preview=true"):
        reply = await assert_like_unknown(
            client, "POST", f"/wallets/{{}}/fund{query}", strangers_of(wallets), json=body, headers=ADA
        )
        assert reply.status_code == 404
    assert (await client.post(f"/wallets/{wallets['ada']}/fund", json=body, headers=ADA)).status_code == 200


async def test_a_transfer_to_a_strangers_wallet_tells_only_whether_it_arrived(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    async def send(name: str, amount: str = "500", **fields: str) -> Response:
        body = {"to_wallet_id": wallets.get(name, name), "amount": amount, **fields}
        return await client.post(f"/wallets/{wallets['ada']}/transfer", json=body, headers=ADA)

    refusals = {name: await send(name) for name in ("dollars", "frozen", "closed", "full")}
    assert {reply.json()["code"] for reply in refusals.values()} == {"receiver-unavailable"}
    assert len({as_unknown(reply, wallets[name])[:2] for name, reply in refusals.items()}) == 1
    # What the sender alone decides comes first.
    for fields, code in [
        ({"amount": "1000.01"}, "insufficient-funds"),
        ({"amount": "1.001"}, "validation-error"),
        ({"currency": "USD"}, "currency-mismatch"),
    ]:
        replies = {name: await send(name, **fields) for name in strangers_names(wallets)}
        assert {reply.json()["code"] for reply in replies.values()} == {code}
        assert len({as_unknown(reply, wallets[name])[:2] for name, reply in replies.items()}) == 1
    assert (await send(UNKNOWN)).json()["code"] == "wallet-not-found"
    arrived = await send("bob", "1")
    assert arrived.json().keys() == {
        "transaction_id",
        "type",
        "wallet_id",
        "counterparty_wallet_id",
        "amount",
        "currency",
        "balance",
        "held",
        "available",
        "version",
        "reference",
        "external_id",
        "metadata",
        "created_at",
    }
    assert (arrived.json()["balance"], arrived.json()["version"], arrived.headers["etag"]) == ("999.00", 3, '"3"')


async def test_a_split_to_strangers_wallets_tells_only_which_of_them_cannot_receive(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    async def send(*names: str, each: str = "500", **fields: str) -> Response:
        legs = [{"to_wallet_id": wallets.get(name, name), "amount": each} for name in names]
        return await client.post(f"/wallets/{wallets['ada']}/split", json={"legs": legs, **fields}, headers=ADA)

    refusals = {name: await send("bob", name) for name in ("dollars", "frozen", "closed", "full")}
    assert {reply.json()["code"] for reply in refusals.values()} == {"receiver-unavailable"}
    assert len({as_unknown(reply, wallets[name])[:2] for name, reply in refusals.items()}) == 1
    for name, reply in refusals.items():
        assert reply.json()["detail"].startswith(f"legs.1.to_wallet_id: wallet {wallets[name]} cannot receive")
    # What the payer alone decides comes first.
    for each, fields, code in [
        ("500.01", {}, "insufficient-funds"),
        ("1.001", {}, "validation-error"),
        ("1", {"amount": "3"}, "validation-error"),
        ("1", {"currency": "USD"}, "currency-mismatch"),
    ]:
        replies = {name: await send("empty", name, each=each, **fields) for name in refusals}
        assert {reply.json()["code"] for reply in replies.values()} == {code}
        assert len({as_unknown(reply, wallets[name])[:2] for name, reply in replies.items()}) == 1
    missing = (await send("bob", UNKNOWN)).json()
    assert (missing["code"], missing["detail"][:20]) == ("wallet-not-found", "legs.1.to_wallet_id:")
    arrived = (await send("bob", "empty", each="1")).json()
    assert (arrived["balance"], arrived["version"], arrived["counterparty_wallet_id"]) == ("998.00", 3, None)
    assert not {wallets["bob"], wallets["empty"]} & {str(value) for value in arrived.values()}


def strangers_names(wallets: Mapping[str, str]) -> list[str]:
    return [name for name in wallets if name != "ada"]


async def test_a_caller_learns_why_a_wallet_that_it_may_read_does_not_receive(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    codes = {"dollars": "currency-mismatch", "frozen": "wallet-frozen", "closed": "wallet-closed"}
    for (name, code), headers in product(codes.items(), (BOB, ADMIN)):
        body = {"to_wallet_id": wallets[name], "amount": "1"}
        refused = await client.post(f"/wallets/{wallets['bob']}/transfer", json=body, headers=headers)
        assert refused.json()["code"] == code


async def test_two_callers_with_one_key_do_not_meet(client: AsyncClient, wallets: dict[str, str], sql: Sql) -> None:
    async def fund(headers: Headers, amount: str = "1") -> Response:
        return await client.post(
            f"/wallets/{wallets['ada']}/fund", json={"amount": amount}, headers={**headers, "Idempotency-Key": "k"}
        )

    callers = [ADA, ADMIN, credentials("another", "ada")]
    first = await asyncio.gather(*(fund(caller) for caller in callers))
    assert [reply.headers.get("idempotent-replayed") for reply in first] == [None] * 3
    assert sorted(reply.json()["version"] for reply in first) == [3, 4, 5]
    again = [await fund(caller) for caller in callers]
    assert [reply.content for reply in again] == [reply.content for reply in first]
    # Another request with the key is told nothing of the requests of other callers.
    assert (await fund(credentials("fourth"), "2")).json()["version"] == 6
    assert (await fund(ADA, "2")).json()["code"] == "idempotency-key-reused"
    rows = await sql("SELECT caller_id FROM wallet.idempotency_keys WHERE key = 'k' ORDER BY 1")
    assert [row["caller_id"] for row in rows] == ["admin", "another", "fourth", "key-of-ada"]


async def test_the_successor_of_a_rotated_key_is_the_same_caller(
    open_client: OpenClient, operator: AsyncEngine, eventually: Callable[..., Awaitable[Any]]
) -> None:
    first = await create_key(operator, "test", "a test", [WALLETS_WRITE])
    post: Json = {"url": "/wallets", "json": {"user_id": "ada", "currency": "EUR"}}
    async with open_client(auth="keys") as client:
        created = await client.post(**post, headers={**bearer(first.text), "Idempotency-Key": "k"})
        successor, _ = await rotate_key(operator, "test", first.id, 1)

        async def again() -> Response | None:
            reply = await client.post(**post, headers={**bearer(successor.text), "Idempotency-Key": "k"})
            return None if reply.status_code == 401 else reply

        assert (await eventually(again)).content == created.content


async def test_a_key_in_flight_of_one_caller_does_not_stop_another(client: AsyncClient, database_url: str) -> None:
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await claim_keys(holder, [IdempotencyKey("key-of-bob", "k")])
        for headers, code in [(ADA, None), (BOB, "idempotency-key-in-flight")]:
            body = {"user_id": "ada" if headers is ADA else "bob", "currency": "EUR"}
            reply = await client.post("/wallets", json=body, headers={**headers, "Idempotency-Key": "k"})
            assert reply.json().get("code") == code
    await holder.close()


async def test_a_replay_is_refused_to_a_caller_that_has_lost_the_scope_or_the_user(client: AsyncClient) -> None:
    post: Json = {"url": "/wallets", "json": {"user_id": "ada", "currency": "EUR"}}
    key = {"Idempotency-Key": "k"}
    assert (await client.post(**post, headers={**ADA, **key})).status_code == 201
    for caller in (credentials("key-of-ada", "ada", [WALLETS_READ]), credentials("key-of-ada", "bob")):
        refused = await client.post(**post, headers={**caller, **key})
        assert (refused.status_code, "idempotent-replayed" in refused.headers) == (403, False)


async def test_what_is_of_another_user_is_forbidden_alike_whether_the_user_exists_or_not(client: AsyncClient) -> None:
    lists = [await client.get(f"/users/{user_id}/wallets", headers=ADA) for user_id in ("bob", "eve")]
    assert {(reply.status_code, reply.json()["code"], reply.json()["detail"]) for reply in lists} == {
        (403, "forbidden", "user_id: the caller is bound to another user. Name that user, or use other credentials.")
    }
    creations = [
        await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"}, headers=ADA)
        for user_id in ("bob", "eve")
    ]
    assert [reply.status_code for reply in creations] == [403, 403]
    assert len({reply.content for reply in creations}) == 1


@pytest.mark.parametrize("path", [path for method, path in ROWS if method == "POST"])
async def test_a_body_sets_nothing_that_only_the_server_sets(
    client: AsyncClient, wallets: dict[str, str], sql: Sql, path: str
) -> None:
    body: Json = {**(ROWS["POST", path].body or {})}
    body = with_receiver(body, wallets["bob"])
    extras: Json = {
        "id": UNKNOWN,
        "user_id": "bob",
        "wallet_id": wallets["bob"],
        "balance": "1000",
        "balance_minor": 100000,
        "version": 7,
        "status": "closed",
        "caller": "admin",
        "caller_id": "admin",
        "scopes": list(SCOPES),
        "created_at": "2020-01-01T00:00:00Z",
        "transaction_id": UNKNOWN,
        "__proto__": {},
    }
    hold_id = await hold_of(client, wallets["ada"])
    (*_, entry) = (await client.get(f"/wallets/{wallets['ada']}/transactions")).json()["items"]
    fund = entry["transaction_id"]
    before = await sql("SELECT * FROM wallet.wallets ORDER BY id")
    for name, value in extras.items():
        if name in body:
            continue
        target = path.format(wallet_id=wallets["ada"], hold_id=hold_id, transaction_id=fund)
        refused = await client.post(target, json={**body, name: value}, headers=ADA)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == [name]
        # What is in the query is not read.
        await client.post(
            path.format(wallet_id=UNKNOWN, hold_id=hold_id, transaction_id=fund),
            params={name: str(value)},
            json=body,
            headers=BOB,
        )
    assert await sql("SELECT * FROM wallet.wallets ORDER BY id") == before
