"""The application as it runs: probes, metrics, settings, a database that fails."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog
from httpx import AsyncClient, Response
from sqlalchemy.engine import make_url
from structlog.testing import LogCapture

import common.http.problem_responses
import wallet_api.group_commit.group_commit
import wallet_api.outbox.relay_notifier
from common.postgres.database_health import INTERVAL_SECONDS, TIMEOUT_SECONDS
from common.rate_limited_logs import RateLimitedLog
from support.limits import LIMITLESS
from support.proxy import Proxy

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
UntilBlocked = Callable[..., Awaitable[None]]
Eventually = Callable[..., Awaitable[Any]]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
REQUIRED = "idempotency-key-required"


async def test_a_server_that_wants_idempotency_keys_refuses_each_post_and_put_without_one(
    open_client: OpenClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}"
    posts = [
        ("/wallets", {"user_id": "ada", "currency": "EUR"}),
        (f"{path}/fund", {"amount": "1"}),
        (f"{path}/withdraw", {"amount": "1"}),
        (f"{path}/holds", {"amount": "1"}),
        (f"{path}/transfer", {"amount": "1", "to_wallet_id": UNKNOWN}),
        (f"{path}/split", {"legs": [{"amount": "1", "to_wallet_id": UNKNOWN}]}),
        (f"{path}/freeze", {"blocks": "all", "reason": "stolen"}),
        (f"{path}/unfreeze", {"reason": "found"}),
        (f"{path}/close", {"reason": "left"}),
        (f"{path}/reopen", {"reason": "is back"}),
    ]
    async with open_client(idempotency_key_required=True) as strict:
        for target, body in posts:
            assert_problem(await strict.post(target, json=body), 400, REQUIRED)
        assert (await strict.get(path)).json() == wallet
        limits = await strict.put(f"{path}/limits", json=LIMITLESS, headers={"If-Match": "*"})
        assert_problem(limits, 400, REQUIRED)
        keyed = await strict.post(f"{path}/fund", json={"amount": "1"}, headers={"Idempotency-Key": "k"})
        assert keyed.status_code == 200


async def test_a_server_that_wants_idempotency_keys_takes_an_external_id_in_place_of_one(
    open_client: OpenClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    """getlago/lago-api#5870: a top-up that is sent twice is done once."""
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    operations = [{"op": "fund", "wallet_id": path.split("/")[2], "amount": "1", "external_id": each} for each in "ab"]
    async with open_client(idempotency_key_required=True) as strict:
        top_up = {"amount": "1", "external_id": "top-up 1"}
        assert (await strict.post(path, json=top_up)).status_code == 200
        assert_problem(await strict.post(path, json=top_up), 409, "external-id-taken")
        body = {"user_id": "ada", "currency": "EUR", "external_id": "my wallet"}
        assert (await strict.post("/wallets", json=body)).status_code == 201
        for number, atomic in enumerate([True, False]):
            batch = {"atomic": atomic, "operations": operations[number:]}
            assert (await strict.post("/batches", json=batch)).is_success
            operations[number].pop("external_id")
            assert_problem(await strict.post("/batches", json=batch | {"operations": operations}), 400, REQUIRED)


async def test_a_live_and_ready_server_says_so(client: AsyncClient) -> None:
    assert (await client.get("/live")).json() == {"status": "live"}
    assert (await client.get("/ready")).json() == {"status": "ready", "checks": {"database": "ok"}}


async def test_the_metrics_count_operations_by_outcome_and_time_requests_by_route(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="5")
    body = {"amount": "9", "to_wallet_id": (await new_wallet("bob"))["id"]}
    await client.post(f"/wallets/{wallet['id']}/transfer", json=body)
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'wallet_operations_total{operation="fund",outcome="done"}' in response.text
    assert 'wallet_operations_total{operation="transfer",outcome="insufficient-funds"}' in response.text
    assert (
        'http_request_duration_seconds_count{method="POST",route="/wallets/{wallet_id}/transfer",status="422"}'
        in response.text
    )
    assert wallet["id"] not in response.text


async def test_the_openapi_document_is_served(client: AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "Wallet API"


async def test_without_its_database_the_server_lives_is_not_ready_and_answers_503(
    open_client: OpenClient, assert_problem: AssertProblem
) -> None:
    requests = [
        ("GET", f"/wallets/{UNKNOWN}", None),
        ("GET", "/users/ada/wallets", None),
        ("POST", "/wallets", {"user_id": "ada", "currency": "EUR"}),
        ("POST", f"/wallets/{UNKNOWN}/fund", {"amount": "1"}),
    ]
    async with open_client(database_url="postgresql://nobody@127.0.0.1:1/none") as lonely:
        assert (await lonely.get("/live")).status_code == 200
        ready = await lonely.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        for method, path, body in requests:
            response = await lonely.request(method, path, json=body)
            assert_problem(response, 503, "unavailable")
            assert response.headers["retry-after"] == "1"


async def test_requests_that_fail_while_the_database_is_away_leave_a_line_and_not_one_each(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LogCapture()
    monkeypatch.setattr("common.rate_limited_logs.monotonic", lambda: 1000.0)
    log = structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    for module in (
        common.http.problem_responses,
        wallet_api.group_commit.group_commit,
        wallet_api.outbox.relay_notifier,
    ):
        monkeypatch.setattr(module, "log", RateLimitedLog(log))
    async with open_client(database_url="postgresql://nobody@127.0.0.1:1/none") as lonely:
        reads = [lonely.get(f"/wallets/{UNKNOWN}") for _ in range(100)]
        writes = [lonely.post(f"/wallets/{UNKNOWN}/fund", json={"amount": "1"}) for _ in range(100)]
        assert {answer.status_code for answer in await asyncio.gather(*reads, *writes)} == {503}
    # One of each event and kind of error.
    assert 1 <= len(seen.entries) < 10


async def test_connections_that_the_server_ended_are_answered_503_and_then_replaced(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    await sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'wallet-api'"
    )
    answers = [await client.get(f"/wallets/{wallet['id']}") for _ in range(3)]
    for answer in answers:
        if answer.status_code != 200:
            assert_problem(answer, 503, "unavailable")
    assert answers[-1].status_code == 200


async def test_requests_that_find_no_free_connection_are_answered_503(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    until_blocked: UntilBlocked,
    assert_problem: AssertProblem,
    patient: dict[str, float],
    eventually: Eventually,
) -> None:
    wallet = await new_wallet()
    holder = await asyncpg.connect(database_url)
    async with open_client(**patient, database_pool_size=1, pool_timeout_seconds=0.1) as small:
        path = f"/wallets/{wallet['id']}"
        async with holder.transaction():
            await holder.execute("LOCK TABLE wallet.wallets IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(small.get(path))
            await until_blocked()
            answer = await small.get(path)
            assert_problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"

            async def is_ready() -> bool:
                return (await small.get("/ready")).status_code == 200

            # Load alone does not make a process unready.
            await eventually(is_ready, 5)
        assert (await waiting).status_code == 200
        assert (await small.get(path)).status_code == 200
    await holder.close()


async def test_a_statement_that_takes_too_long_is_answered_503(
    open_client: OpenClient,
    client: AsyncClient,
    new_wallet: NewWallet,
    database_url: str,
    assert_problem: AssertProblem,
) -> None:
    wallet = await new_wallet(balance="1")
    holder = await asyncpg.connect(database_url)
    async with open_client(statement_timeout_seconds=0.2, busy_retry_seconds=10) as hasty, holder.transaction():
        await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
        for path, body in [("fund", {}), ("transfer", {"to_wallet_id": str(uuid4())})]:
            answer = await hasty.post(f"/wallets/{wallet['id']}/{path}", json={"amount": "1", **body})
            assert_problem(answer, 503, "unavailable")
    await holder.close()
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet


async def test_a_read_that_waits_too_long_for_a_lock_is_answered_503(
    open_client: OpenClient, new_wallet: NewWallet, sql: Sql, database_url: str, assert_problem: AssertProblem
) -> None:
    """A migration, or an operator's LOCK TABLE, keeps reads waiting."""
    wallet = await new_wallet(balance="1")
    path, unknown = f"/wallets/{wallet['id']}", uuid4()
    (funded,) = await sql("SELECT transaction_id FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL")
    reads = [path, f"{path}?expand=holds", f"{path}/transactions", f"/transactions/{funded[0]}", f"/holds/{unknown}"]
    posts = [f"{path}/fund?preview=true", f"/transactions/{funded[0]}/reverse", f"/holds/{unknown}/void"]
    holder = await asyncpg.connect(database_url)
    async with open_client(batch_lock_timeout_seconds=0.1) as hasty, holder.transaction():
        await holder.execute("LOCK TABLE wallet.wallets, wallet.holds, wallet.wallet_transactions")
        answers = [await hasty.get(read) for read in reads]
        answers += [await hasty.post(post, json={"amount": "1"}) for post in posts[:1]]
        answers += [await hasty.post(post, json={"reason": "x"}) for post in posts[1:]]
        for answer in answers:
            problem = assert_problem(answer, 503, "unavailable")
            assert (problem["detail"], answer.headers["retry-after"]) == (
                "The database did not answer in time. Nothing was done. Retry.",
                "1",
            )
    await holder.close()


async def test_a_migration_that_adds_columns_breaks_no_running_server(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}"
    reads = [path, f"{path}/transactions", "/users/ada/wallets"]
    before = [(await client.get(read)).json() for read in reads]
    for table in ("wallets", "wallet_transactions", "outbox", "idempotency_keys"):
        await sql(f"ALTER TABLE wallet.{table} ADD COLUMN colour text")
    assert [(await client.get(read)).json() for read in reads] == before
    assert (await client.post(f"{path}/fund", json={"amount": "1"})).status_code == 200


async def test_a_server_that_is_full_refuses_at_once_and_goes_on_answering_probes(
    open_client: OpenClient, new_wallet: NewWallet, database_url: str, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    holder = await asyncpg.connect(database_url)
    async with open_client(requests_max=2, busy_retry_seconds=10) as small:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            path = f"/wallets/{wallet['id']}/fund"
            waiting = [asyncio.create_task(small.post(path, json={"amount": "1"})) for _ in range(2)]
            await asyncio.wait(waiting, timeout=0.2)
            refused = await small.get(f"/wallets/{wallet['id']}")
            assert not any(task.done() for task in waiting)
            assert_problem(refused, 503, "unavailable")
            assert refused.headers["retry-after"] == "1"
            assert (await small.get("/live")).status_code == 200
            assert (await small.get("/ready")).status_code == 200
        assert {(await task).status_code for task in waiting} == {200}
        assert (await small.get(f"/wallets/{wallet['id']}")).status_code == 200
    await holder.close()


@pytest.mark.parametrize(("batch_lock_timeout_seconds", "is_done"), [(0.02, False), (60, True)])
async def test_a_request_past_its_deadline_is_cut_off_and_its_key_tells_what_came_of_it(
    open_client: OpenClient,
    client: AsyncClient,
    new_wallet: NewWallet,
    database_url: str,
    until_blocked: UntilBlocked,
    until_idle: Callable[[], Awaitable[None]],
    assert_problem: AssertProblem,
    batch_lock_timeout_seconds: float,
    is_done: bool,
) -> None:
    """It is retried for the lock and then left out; or its transaction waits, and goes on without the client."""
    wallet = await new_wallet()
    path, headers = f"/wallets/{wallet['id']}/fund", {"Idempotency-Key": "slow"}
    holder = await asyncpg.connect(database_url)
    async with open_client(
        request_deadline_seconds=1,
        busy_retry_seconds=60,
        batch_lock_timeout_seconds=batch_lock_timeout_seconds,
        statement_timeout_seconds=90,
        transaction_timeout_seconds=90,
    ) as hasty:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            cut_off = await hasty.post(path, json={"amount": "1"}, headers=headers)
            assert_problem(cut_off, 503, "unavailable")
            await (until_blocked() if is_done else until_idle())
            assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet
        again = await client.post(path, json={"amount": "1"}, headers=headers)
        assert (again.status_code, again.json()["version"]) == (200, 2)
        assert ("idempotent-replayed" in again.headers) == is_done
    await holder.close()
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "1.00"


async def test_a_database_that_does_not_answer_is_told_within_a_second(
    open_client: OpenClient, assert_problem: AssertProblem
) -> None:
    """A port that accepts connections and sends nothing, as a frozen server does."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with open_client(database_url=f"postgresql://nobody@127.0.0.1:{port}/none") as lonely:
            started = loop.time()
            answer = await lonely.get(f"/wallets/{UNKNOWN}")
            assert_problem(answer, 503, "unavailable")
            assert loop.time() - started < 1.5
            assert (await lonely.get("/ready")).status_code == 503
            assert (await lonely.get("/live")).status_code == 200


async def test_a_silent_first_host_of_several_keeps_no_client_waiting(
    open_client: OpenClient, database_url: str, eventually: Eventually
) -> None:
    port = make_url(database_url).port
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = [f"127.0.0.1:{number}" for number in (silent.getsockname()[1], port)]
        url = make_url(database_url).set(host=None, port=None, query={"host": hosts})
        async with open_client(database_url=url.render_as_string(hide_password=False)) as client:

            async def all_are_served() -> bool:
                created = [client.post("/wallets", json={"user_id": "ada", "currency": "EUR"}) for _ in range(5)]
                is_ready = (await client.get("/ready")).status_code == 200
                return is_ready and {answer.status_code for answer in await asyncio.gather(*created)} == {201}

            await eventually(all_are_served)


async def test_money_is_committed_durably_whatever_the_database_has_as_its_default(
    open_client: OpenClient, sql: Sql
) -> None:
    name = (await sql("SELECT current_database() AS name"))[0]["name"]
    await sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await sql("CREATE TABLE wallet.seen (setting text)")
    await sql("GRANT INSERT ON wallet.seen TO PUBLIC")
    await sql(
        "CREATE FUNCTION wallet.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO wallet.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    await sql("CREATE TRIGGER see AFTER INSERT ON wallet.wallets EXECUTE FUNCTION wallet.see()")
    async with open_client() as client:
        assert (await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"})).status_code == 201
    assert [row["setting"] for row in await sql("SELECT setting FROM wallet.seen")] == ["on"]


async def test_a_database_that_falls_silent_is_told_within_a_second_to_all_that_wait_and_at_once_to_those_that_come(
    open_client: OpenClient,
    linked_database_url: str,
    database_link: Proxy,
    assert_problem: AssertProblem,
    eventually: Eventually,
) -> None:
    loop = asyncio.get_running_loop()
    async with open_client(database_url=linked_database_url) as client:

        async def create(number: int) -> Response:
            return await client.post("/wallets", json={"user_id": f"u{number}", "currency": "EUR"})

        async def ready() -> bool:
            return (await client.get("/ready")).status_code == 200

        async def all_are_served() -> bool:
            return {answer.status_code for answer in await asyncio.gather(*map(create, range(30)))} == {201}

        await eventually(all_are_served)
        database_link.silence()
        started = loop.time()
        for answer in await asyncio.gather(*map(create, range(30))):
            assert_problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        # Three seconds more, for a busy machine.
        assert loop.time() - started < INTERVAL_SECONDS + TIMEOUT_SECONDS + 3
        started = loop.time()
        assert_problem(await create(0), 503, "unavailable")
        assert not await ready()
        assert loop.time() - started < 0.2
        assert (await client.get("/live")).status_code == 200
        database_link.heal()
        await eventually(ready)
        await eventually(all_are_served)
