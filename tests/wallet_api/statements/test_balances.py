"""A wallet's balance at a time or a version, over HTTP."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.moments import timestamp
from support.limits import put_limits
from support.plans import ledger_rows_read
from support.statements import fill_ledger
from wallet_api.statements import queries

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
AssertProblem = Callable[[Response, int, str], Json]

MICROSECOND = timedelta(microseconds=1)


async def balance(client: AsyncClient, wallet_id: str, **query: Any) -> Json:
    reply = await client.get(f"/wallets/{wallet_id}/balance", params=query)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


async def versions_of(client: AsyncClient, wallet: Json, count: int) -> list[datetime]:
    """Fund the wallet so often, with 1 each time; return the times of its versions."""
    replies = [await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"}) for _ in range(count)]
    times = [wallet["created_at"], *(reply.json()["created_at"] for reply in replies)]
    return [datetime.fromisoformat(time) for time in times]


async def test_the_balance_at_a_time_is_that_of_the_highest_version_up_to_it(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    for count in (0, 1, 2, 3, 7):
        wallet = await new_wallet()
        times = await versions_of(client, wallet, count)
        assert times == sorted(set(times))
        for version, moment in enumerate(times, start=1):
            for at, expected in [(moment - MICROSECOND, version - 1), (moment, version)]:
                found = await balance(client, wallet["id"], at=timestamp(at))
                amount = f"{max(0, expected - 1)}.00"
                assert found == {
                    "wallet_id": wallet["id"],
                    "currency": "EUR",
                    "balance": amount,
                    "held": "0.00",
                    "available": amount,
                    "version": expected,
                    "as_of": timestamp(at),
                    "final": True,
                }


async def test_before_its_creation_a_wallet_has_version_0_and_no_balance(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="5")
    for at in ("0001-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00"):
        found = await balance(client, wallet["id"], at=at)
        assert (found["version"], found["balance"], found["final"]) == (0, "0.00", True)


async def test_between_its_creation_and_its_first_movement_a_wallet_has_the_balance_zero(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet()
    found = await balance(client, wallet["id"], at=wallet["created_at"])
    assert (found["version"], found["balance"], found["final"]) == (1, "0.00", True)


async def test_without_a_time_it_is_the_balance_of_now(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="5")
    found = await balance(client, wallet["id"])
    assert (found["version"], found["balance"]) == (2, "5.00")
    assert found["as_of"] > wallet["updated_at"]
    again = await balance(client, wallet["id"], at=found["as_of"])
    assert again == {**found, "final": True}


async def test_the_balance_at_a_version_is_final_and_as_of_its_time(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(currency="JPY")
    times = await versions_of(client, wallet, 3)
    for version, moment in enumerate(times, start=1):
        found = await balance(client, wallet["id"], version=version)
        assert found["balance"] == found["available"] == str(version - 1)
        assert (found["version"], found["as_of"], found["final"]) == (version, timestamp(moment), True)


async def test_what_was_available_includes_the_overdraft_limit_of_that_version(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    """The limit is set, used, lowered below its use, and taken away; before it was set, there was none."""
    wallet = await new_wallet(balance="50")
    path = f"/wallets/{wallet['id']}"
    told = [
        (await client.post(f"{path}/fund", json={"amount": "10"})).json(),
        await put_limits(client, wallet, overdraft_limit="100"),
        (await client.post(f"{path}/withdraw", json={"amount": "130"})).json(),
        (await client.post(f"{path}/holds", json={"amount": "20"})).json(),
        await put_limits(client, wallet, overdraft_limit="30"),
        await put_limits(client, wallet, balance_max="1000"),
    ]
    assert [each["available"] for each in told] == ["60.00", "160.00", "30.00", "10.00", "-60.00", "-90.00"]
    for each in told:
        expected = {name: each[name] for name in ("balance", "held", "available", "version")}
        at_version = await balance(client, wallet["id"], version=each["version"])
        at_time = await balance(client, wallet["id"], at=each["created_at"])
        assert at_version.items() >= expected.items()
        assert at_time.items() >= expected.items()
    now = (await client.get(path)).json()
    assert now["available"] == at_version["available"]
    assert now["version"] == at_version["version"]
    # It begins with a limit, and its last entry sets a lower one.
    period = {"from": told[2]["created_at"], "to": told[5]["created_at"]}
    statement = (await client.get(f"{path}/statement", params=period)).json()
    assert (statement["opening"]["available"], statement["closing"]["available"]) == ("160.00", "-60.00")
    as_csv = await client.get(f"{path}/statement", params=period, headers={"Accept": "text/csv"})
    lines = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert [line["available"] for line in lines] == ["160.00", "30.00", "10.00", "-60.00", "-60.00"]
    as_xml = await client.get(f"{path}/statement", params=period, headers={"Accept": "application/xml"})
    assert '<CdtLine><Incl>true</Incl><Amt Ccy="EUR">100.00</Amt></CdtLine><Amt Ccy="EUR">160.00</Amt>' in as_xml.text
    assert '<Amt Ccy="EUR">60.00</Amt><CdtDbtInd>DBIT</CdtDbtInd>' in as_xml.text


async def test_a_time_in_the_future_and_a_version_that_is_not_yet_are_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    refused: list[tuple[Json, str]] = [
        ({"at": "2999-01-01T00:00:00Z"}, "at"),
        ({"at": "9999-12-31T23:59:59.999999Z"}, "at"),
        ({"version": 2}, "version"),
        ({"version": 2**63 - 1}, "version"),
        ({"version": 2**63}, "version"),
        ({"version": 0}, "version"),
        ({"version": 1, "at": wallet["created_at"]}, "version"),
        ({"at": "2026-01-01"}, "at"),
        ({"at": "2026-01-01T00:00:00"}, "at"),
        ({"at": "0001-01-01T00:00:00+01:00"}, "at"),
        ({"at": "1767225600"}, "at"),
    ]
    for query, field in refused:
        reply = await client.get(f"/wallets/{wallet['id']}/balance", params=query)
        problem = assert_problem(reply, 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_wallet_that_does_not_exist_has_no_balance(client: AsyncClient, assert_problem: AssertProblem) -> None:
    queries_: list[Json] = [{}, {"at": "2026-01-01T00:00:00Z"}, {"version": 1}]
    for query in queries_:
        reply = await client.get(f"/wallets/{uuid4()}/balance", params=query)
        assert_problem(reply, 404, "wallet-not-found")


async def test_the_search_reads_few_entries_of_a_large_wallet(
    new_wallet: NewWallet, database_url: str, engine: AsyncEngine
) -> None:
    """Though the planner has no statistics, and takes the wallet for a small one."""
    wallet_id = UUID((await new_wallet())["id"])
    await fill_ledger(database_url, wallet_id, 4000)
    moment = datetime(2020, 1, 1, 0, 33, 20, tzinfo=UTC)
    async with engine.connect() as connection:
        (found,) = await queries.balances_before(connection, wallet_id, None, [moment])
        explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {queries.BALANCES_BEFORE}")
        parameters = {"id": wallet_id, "caller_user_id": None, "moments": [moment]}
        ((explained,),) = await connection.execute(explain, parameters)
    assert (found.version, found.balance_minor) == (2001, 2000)
    assert 10 < ledger_rows_read(explained[0]["Plan"]) < 20
