"""A wallet's statement over HTTP: its arithmetic, its formats, and what it costs."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, RemoteProtocolError, Response
from lxml import etree  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine

from common.moments import timestamp
from common.tables.roles import Role
from support.raw_http import serving_api
from support.roles import Roles
from support.statements import fill_ledger
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings
from wallet_api.statements import periods, queries

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

SCHEMA = Path(__file__).with_name("camt.053.001.08.xsd")
FORMATS = ["application/json", "text/csv", "application/xml"]
MICROSECOND = timedelta(microseconds=1)


async def ask(client: AsyncClient, wallet: Json, start: str, end: str, accept: str = "*/*") -> Response:
    return await client.get(
        f"/wallets/{wallet['id']}/statement", params={"from": start, "to": end}, headers={"Accept": accept}
    )


async def statement(client: AsyncClient, wallet: Json, start: str, end: str) -> Json:
    reply = await ask(client, wallet, start, end)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


def sums(found: Json) -> bool:
    """Whether the opening balance and the entries sum to the closing balance, by version and by amount."""
    entries = found["entries"]
    opening, closing = found["opening"], found["closing"]
    total = round(float(opening["balance"]) * 100) + sum(round(float(entry["amount"]) * 100) for entry in entries)
    versions = [entry["version"] for entry in entries]
    first = max(2, opening["version"] + 1)
    return total == round(float(closing["balance"]) * 100) and versions == list(range(first, closing["version"] + 1))


@pytest.fixture
async def moved(client: AsyncClient, new_wallet: NewWallet) -> tuple[Json, list[str]]:
    """A wallet with six movements, and the times of its versions."""
    wallet, other = await new_wallet(), await new_wallet(balance="50")
    times = [wallet["created_at"]]
    path, back = f"/wallets/{wallet['id']}", f"/wallets/{other['id']}"
    for target, body in [
        (f"{path}/fund", {"amount": "20", "reference": 'salary, "May"'}),
        (f"{path}/transfer", {"amount": "5.50", "to_wallet_id": other["id"], "reference": "=1+1"}),
        (f"{back}/transfer", {"amount": "1.25", "to_wallet_id": wallet["id"]}),
        (f"{path}/fund", {"amount": "0.01"}),
        (f"{path}/transfer", {"amount": "15.76", "to_wallet_id": other["id"]}),
        (f"{path}/fund", {"amount": "7"}),
    ]:
        reply = await client.post(target, json=body)
        assert reply.status_code == 200, reply.text
        times.append(reply.json()["created_at"])
    return wallet, times


async def test_statements_of_adjoining_periods_adjoin_and_each_sums_up(
    client: AsyncClient, moved: tuple[Json, list[str]]
) -> None:
    wallet, times = moved
    moments = [datetime.fromisoformat(time) for time in times]
    bounds = [moments[0] - timedelta(days=1)]
    for moment in moments[1:]:
        # Also a period that ends in the very moment of a version, and one that begins behind it.
        bounds += [moment, moment + MICROSECOND]
    found = [await statement(client, wallet, timestamp(start), timestamp(end)) for start, end in pairwise(bounds)]
    whole = await statement(client, wallet, timestamp(bounds[0]), timestamp(bounds[-1]))
    for each in (*found, whole):
        assert sums(each)
        assert each["final"]
    for one, following in pairwise(found):
        assert following["opening"] == one["closing"]
    assert whole["opening"] == {"balance": "0.00", "held": "0.00", "available": "0.00", "version": 0}
    assert whole["closing"] == {"balance": "7.00", "held": "0.00", "available": "7.00", "version": 7}
    ledger = await client.get(f"/wallets/{wallet['id']}/transactions?order=asc")
    assert whole["entries"] == ledger.json()["items"]
    assert [entry for each in found for entry in each["entries"]] == whole["entries"]
    # A moment belongs to the period that begins with it.
    assert [len(each["entries"]) for each in found] == [0, 1] * 6


async def test_the_closing_balance_is_the_balance_just_before_the_end(
    client: AsyncClient, moved: tuple[Json, list[str]]
) -> None:
    wallet, times = moved
    for end in times[2:]:
        before = timestamp(datetime.fromisoformat(end) - MICROSECOND)
        found = await statement(client, wallet, times[0], end)
        balance = (await client.get(f"/wallets/{wallet['id']}/balance", params={"at": before})).json()
        assert found["closing"] == {name: balance[name] for name in found["closing"]}


async def test_each_format_says_the_same(client: AsyncClient, moved: tuple[Json, list[str]]) -> None:
    wallet, times = moved
    replies = {accept: await ask(client, wallet, times[1], times[-1], accept) for accept in FORMATS}
    types = [reply.headers["content-type"] for reply in replies.values()]
    assert types == ["application/json", "text/csv; charset=utf-8; header=present", "application/xml"]
    assert {reply.headers["vary"] for reply in replies.values()} == {"Accept"}
    as_json = replies["application/json"].json()
    lines = list(csv.DictReader(io.StringIO(replies["text/csv"].text, newline="")))
    document = etree.fromstring(replies["application/xml"].content)
    etree.XMLSchema(etree.parse(SCHEMA)).assertValid(document)
    names = {"c": document.nsmap[None]}
    balances = [as_json["opening"]["balance"], as_json["closing"]["balance"]]
    assert [lines[0]["balance"], lines[-1]["balance"]] == balances
    booked_and_available = [balance for balance in balances for _ in range(2)]
    assert [found.text for found in document.findall(".//c:Bal/c:Amt", names)] == booked_and_available
    entries = as_json["entries"]
    assert [line["amount"] for line in lines[1:-1]] == [entry["amount"] for entry in entries]
    assert [line["reference"] for line in lines[1:3]] == ['salary, "May"', "'=1+1"]
    amounts = [found.text for found in document.findall(".//c:Ntry/c:Amt", names)]
    assert amounts == [entry["amount"].lstrip("-") for entry in entries]


async def test_each_format_shows_what_was_held_and_what_was_available(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="50")
    start = (await client.post(f"/wallets/{wallet['id']}/holds", json={"amount": "20"})).json()
    hold = f"/holds/{start['hold']['id']}"
    captured = (await client.post(f"{hold}/capture", json={"amount": "5", "final": False})).json()
    end = (await client.post(f"{hold}/void", json={})).json()
    period = (captured["created_at"], end["created_at"])
    told = await statement(client, wallet, *period)
    assert told["opening"] == {"balance": "50.00", "held": "20.00", "available": "30.00", "version": 3}
    assert told["closing"] == {"balance": "45.00", "held": "15.00", "available": "30.00", "version": 4}
    assert [(entry["held"], entry["held_after"]) for entry in told["entries"]] == [("-5.00", "15.00")]
    for version, held in [(2, "0.00"), (3, "20.00"), (4, "15.00"), (5, "0.00")]:
        read = (await client.get(f"/wallets/{wallet['id']}/balance?version={version}")).json()
        at = (await client.get(f"/wallets/{wallet['id']}/balance", params={"at": read["as_of"]})).json()
        assert (read["held"], at["held"], at["available"]) == (held, held, read["available"])
    as_csv = await ask(client, wallet, *period, "text/csv")
    lines = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert [(line["balance"], line["held"], line["available"]) for line in lines] == [
        ("50.00", "20.00", "30.00"),
        *[("45.00", "15.00", "30.00")] * 2,
    ]
    document = etree.fromstring((await ask(client, wallet, *period, "application/xml")).content)
    names = {"c": document.nsmap[None]}
    balances = [
        (found.findtext(".//c:Cd", namespaces=names), found.findtext("c:Amt", namespaces=names))
        for found in document.findall(".//c:Bal", names)
    ]
    assert balances == [("OPBD", "50.00"), ("OPAV", "30.00"), ("CLBD", "45.00"), ("CLAV", "30.00")]


async def test_the_accept_header_chooses_the_format_and_others_are_not_acceptable(
    client: AsyncClient, moved: tuple[Json, list[str]], assert_problem: AssertProblem
) -> None:
    wallet, times = moved
    reply = await ask(client, wallet, times[0], times[1], "text/html, application/*;q=0.5, application/json;q=0.1")
    assert reply.headers["content-type"] == "application/xml"
    problem = assert_problem(await ask(client, wallet, times[0], times[1], "text/html"), 406, "not-acceptable")
    assert problem["offered"] == FORMATS


@pytest.mark.parametrize("accept", FORMATS)
async def test_a_statement_without_entries_is_one_all_the_same(
    client: AsyncClient, new_wallet: NewWallet, accept: str
) -> None:
    wallet = await new_wallet()
    reply = await ask(client, wallet, "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z", accept)
    assert reply.status_code == 200
    if accept == "application/json":
        assert (reply.json()["entries"], reply.json()["final"]) == ([], True)
    elif accept == "text/csv":
        assert len(reply.text.split("\r\n")) == 4
    else:
        etree.XMLSchema(etree.parse(SCHEMA)).assertValid(etree.fromstring(reply.content))


async def test_a_period_that_is_empty_or_ends_in_the_future_is_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    for start, end, field in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "to"),
        ("2026-01-01T00:00:01Z", "2026-01-01T01:00:00+01:00", "to"),
        ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "to"),
        ("2026-01-01", "2026-02-01T00:00:00Z", "from"),
        ("2026-01-01T00:00:00Z", "", "to"),
    ]:
        problem = assert_problem(await ask(client, wallet, start, end), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == [field]
    missing = assert_problem(await client.get(f"/wallets/{wallet['id']}/statement"), 422, "validation-error")
    assert [error["field"] for error in missing["errors"]] == ["from", "to"]


async def test_a_wallet_that_does_not_exist_has_no_statement(
    client: AsyncClient, assert_problem: AssertProblem
) -> None:
    reply = await ask(client, {"id": str(uuid4())}, "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z")
    assert_problem(reply, 404, "wallet-not-found")


async def test_a_statement_of_too_many_entries_is_refused(
    client: AsyncClient, moved: tuple[Json, list[str]], assert_problem: AssertProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet, times = moved
    monkeypatch.setattr(periods, "ENTRIES_MAX", 4)
    assert sums(await statement(client, wallet, times[1], times[5]))
    assert_problem(await ask(client, wallet, times[1], times[6]), 422, "validation-error")


@pytest.fixture
async def served(database_url: str, roles: Roles) -> AsyncIterator[AsyncClient]:
    """A client of an API with a socket and one connection that reads."""
    settings = WalletApiSettings(
        auth="none",
        database_url=roles.url(database_url, Role.API),
        log_level="warning",
        database_pool_size=1,
    )
    with serving_api(create_app(settings), settings) as port:
        async with AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client


async def test_a_long_statement_holds_no_connection_while_its_client_reads_it(
    served: AsyncClient, new_wallet: NewWallet, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only connection that reads serves other requests meanwhile."""
    wallet = await new_wallet()
    await fill_ledger(database_url, UUID(wallet["id"]), 10_000)
    target = f"/wallets/{wallet['id']}/statement?from=2019-01-01T00:00:00Z&to=2021-01-01T00:00:00Z"
    monkeypatch.setattr(queries, "PAGE_ENTRIES", 100)
    async with served.stream("GET", target, headers={"Accept": "text/csv"}) as reply:
        parts = reply.aiter_bytes()
        received = [await anext(parts)]
        for _ in range(20):
            other = await served.get(f"/wallets/{wallet['id']}/balance?version=2")
            assert other.status_code == 200
        received += [part async for part in parts]
    lines = b"".join(received).decode().split("\r\n")
    assert len(lines) == 1 + 1 + 10_000 + 1 + 1
    assert lines[-2].startswith("CLOSING,10001,")
    assert lines[-2].endswith(",100.00,0.00,100.00,EUR")


async def test_a_statement_whose_database_goes_away_is_never_taken_for_whole(
    served: AsyncClient,
    new_wallet: NewWallet,
    database_url: str,
    roles: Roles,
    sql: Sql,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    wallet = await new_wallet()
    await fill_ledger(database_url, UUID(wallet["id"]), 60_000)
    target = f"/wallets/{wallet['id']}/statement?from=2019-01-01T00:00:00Z&to=2021-01-01T00:00:00Z"
    async with served.stream("GET", target) as reply:
        parts = reply.aiter_bytes()
        assert (await anext(parts)).startswith(b"{")
        # The rest does not fit into the buffers of the connection.
        await sql(f"REVOKE SELECT ON wallet.wallet_transactions FROM {roles.names[Role.API]}")
        with pytest.raises(RemoteProtocolError):
            [part async for part in parts]

    async def is_logged() -> bool:
        return "statement_broken_off" in caplog.text

    await eventually(is_logged)
    assert "request_failed" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


async def test_the_pages_of_a_statement_are_all_entries_in_order(
    new_wallet: NewWallet, database_url: str, engine: AsyncEngine
) -> None:
    wallet_id = UUID((await new_wallet())["id"])
    await fill_ledger(database_url, wallet_id, 2 * queries.PAGE_ENTRIES + 1)
    pages = [rows async for rows in queries.pages_of_entries(engine, wallet_id, 1, 2 * queries.PAGE_ENTRIES + 2)]
    assert [len(rows) for rows in pages] == [queries.PAGE_ENTRIES, queries.PAGE_ENTRIES, 1]
    versions = [row["wallet_version"] for rows in pages for row in rows]
    assert versions == list(range(2, 2 * queries.PAGE_ENTRIES + 3))
