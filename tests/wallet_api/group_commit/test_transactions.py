"""Many requests at once, to several applications, on the real PostgreSQL."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.failpoints import Failpoint, FailpointError
from common.postgres import raw_sql
from common.postgres.engine import create_engine
from support.proxy import Proxy
from wallet_api.commands import CreateWallet
from wallet_api.errors import WalletBusy
from wallet_api.group_commit.transactions import OutcomeUnknown, execute
from wallet_api.replies import DONE, Reply, problem_reply
from wallet_api.use_cases.use_cases import create_wallets

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
Eventually = Callable[..., Awaitable[Any]]
Check = Callable[[], Awaitable[None]]
UntilBlocked = Callable[..., Awaitable[None]]
Retries = Callable[[str], float]

# These tests are about the end state: on a busy machine it may take long.
PATIENT = {
    "busy_retry_seconds": 60,
    "batch_lock_timeout_seconds": 60,
    "statement_timeout_seconds": 90,
    "transaction_timeout_seconds": 90,
    "pool_timeout_seconds": 60,
    "request_deadline_seconds": 120,
    "version_attempts_max": 1000,
}

CREATE = CreateWallet(
    path="/wallets", claim=None, traceparent=None, metadata={}, user_id="ada", currency="EUR", external_id=None
)


@pytest.fixture
async def apis(open_client: OpenClient) -> AsyncIterator[list[AsyncClient]]:
    """Three applications, as of three API processes, each with its own pool; in small batches, so that they meet."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_client(**PATIENT, batch_commands_max=4)) for _ in range(3)]


async def fund(api: AsyncClient, wallet: Json, amount: str = "1", **headers: str) -> Response:
    return await api.post(f"/wallets/{wallet['id']}/fund", json={"amount": amount}, headers=headers)


async def transfer(api: AsyncClient, sender: Json, receiver: Json, amount: str = "1") -> Response:
    body = {"to_wallet_id": receiver["id"], "amount": amount}
    return await api.post(f"/wallets/{sender['id']}/transfer", json=body)


async def read(api: AsyncClient, wallet: Json) -> Json:
    found: Json = (await api.get(f"/wallets/{wallet['id']}")).json()
    return found


def codes(answers: list[Response]) -> Counter[Any]:
    return Counter(answer.json().get("code", answer.status_code) for answer in answers)


async def test_no_fund_is_lost_when_many_fund_one_wallet_at_once(
    apis: list[AsyncClient], new_wallet: NewWallet, retries: Retries, assert_promises_kept: Check
) -> None:
    wallet = await new_wallet()
    races_lost = retries("version-conflict")
    answers = await asyncio.gather(*(fund(api, wallet, "0.01") for api in apis for _ in range(20)))
    assert codes(answers) == {200: 60}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 62))
    after = await read(apis[0], wallet)
    assert (after["balance"], after["version"]) == ("0.60", 61)
    assert retries("version-conflict") > races_lost
    await assert_promises_kept()


async def test_transfers_both_ways_between_the_same_wallets_never_deadlock_and_keep_the_money(
    apis: list[AsyncClient], new_wallet: NewWallet, retries: Retries, assert_promises_kept: Check
) -> None:
    wallets = [await new_wallet(user_id, balance="100") for user_id in ("ada", "bob", "cleo")]
    deadlocks = retries("40P01")
    pairs = [(sender, receiver) for sender in wallets for receiver in wallets if sender is not receiver]
    asked = [(api, *pair) for api in apis for pair in pairs * 7]
    random.Random(4711).shuffle(asked)
    answers = await asyncio.gather(*(transfer(*each) for each in asked))
    assert codes(answers) == {200: 126}
    assert retries("40P01") == deadlocks
    after = [await read(apis[0], wallet) for wallet in wallets]
    # As many went one way as the other.
    assert [(wallet["balance"], wallet["version"]) for wallet in after] == [("100.00", 2 + 84)] * 3
    await assert_promises_kept()


async def test_a_wallet_never_goes_negative_under_concurrent_transfers(
    apis: list[AsyncClient], new_wallet: NewWallet, assert_promises_kept: Check
) -> None:
    ada, bob = await new_wallet("ada", balance="10"), await new_wallet("bob")
    answers = await asyncio.gather(*(transfer(api, ada, bob) for api in apis for _ in range(10)))
    assert codes(answers) == {200: 10, "insufficient-funds": 20}
    after = [(wallet["balance"], wallet["version"]) for wallet in (await read(apis[0], ada), await read(apis[0], bob))]
    assert after == [("0.00", 12), ("10.00", 11)]
    await assert_promises_kept()


async def test_money_is_conserved_when_funds_transfers_and_refusals_of_the_same_wallets_meet(
    apis: list[AsyncClient], new_wallet: NewWallet, retries: Retries, assert_promises_kept: Check
) -> None:
    dice = random.Random(4711)
    wallets = [await new_wallet(f"user-{number}", balance="2") for number in range(4)]
    deadlocks = retries("40P01")

    async def act(api: AsyncClient) -> Response:
        sender, receiver = dice.sample(wallets, 2)
        if dice.random() < 0.3:
            return await fund(api, sender, "0.50")
        return await transfer(api, sender, receiver, f"{dice.randint(1, 300) / 100:.2f}")

    answers = await asyncio.gather(*(act(api) for api in apis for _ in range(50)))
    outcomes = codes(answers)
    assert outcomes.keys() <= {200, "insufficient-funds"}
    assert retries("40P01") == deadlocks
    funded = sum(answer.status_code == 200 and answer.json()["type"] == "FUND" for answer in answers)
    balances = [float((await read(apis[0], wallet))["balance"]) for wallet in wallets]
    assert round(sum(balances), 2) == 8 + funded * 0.5
    await assert_promises_kept()


async def test_one_external_id_asked_for_many_times_at_once_makes_one_wallet(
    apis: list[AsyncClient], assert_promises_kept: Check
) -> None:
    body = {"user_id": "ada", "currency": "EUR", "external_id": "main"}
    answers = await asyncio.gather(*(api.post("/wallets", json=body) for api in apis for _ in range(7)))
    assert codes(answers) == {201: 1, "external-id-taken": 20}
    assert len({answer.json().get("wallet_id") or answer.json()["id"] for answer in answers}) == 1
    await assert_promises_kept()


async def test_only_one_of_many_with_the_same_if_match_gets_through(
    apis: list[AsyncClient], new_wallet: NewWallet, assert_promises_kept: Check
) -> None:
    wallet = await new_wallet()
    answers = await asyncio.gather(*(fund(api, wallet, **{"If-Match": '"1"'}) for api in apis for _ in range(5)))
    assert codes(answers) == {200: 1, "version-mismatch": 14}
    await assert_promises_kept()


@pytest.mark.parametrize("act", ["fund", "transfer"])
async def test_a_wallet_that_another_session_has_locked_is_busy_after_the_time_for_retries_and_not_before(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    assert_problem: AssertProblem,
    act: str,
) -> None:
    ada, bob = await new_wallet("ada", balance="5"), await new_wallet("bob")
    holder, clock = await asyncpg.connect(database_url), asyncio.get_running_loop().time
    async with open_client(busy_retry_seconds=0.3) as api, holder.transaction():
        await holder.execute("SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE", UUID(ada["id"]))
        asked_at = clock()
        answer = await (fund(api, ada) if act == "fund" else transfer(api, bob, ada))
        assert assert_problem(answer, 409, "wallet-busy")["title"] == "Wallet busy"
        assert answer.headers["retry-after"] == "1"
        assert clock() - asked_at >= 0.3
        assert await read(api, ada) == ada
    await holder.close()


@pytest.mark.parametrize(
    ("attempts_max", "headers", "code"),
    [(1, {}, "version-conflict"), (2, {}, 200), (2, {"If-Match": '"1"'}, "version-mismatch")],
)
async def test_a_fund_that_loses_the_race_looks_again_as_often_as_it_may(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    until_blocked: UntilBlocked,
    attempts_max: int,
    headers: dict[str, str],
    code: int | str,
) -> None:
    wallet = await new_wallet()
    holder = await asyncpg.connect(database_url)
    async with open_client(**{**PATIENT, "version_attempts_max": attempts_max}) as api:
        async with holder.transaction():
            await holder.execute("UPDATE wallet.wallets SET version = version + 1")
            asked = asyncio.create_task(fund(api, wallet, **headers))
            await until_blocked()
        answer = await asked
        assert answer.json().get("code", answer.status_code) == code
        if code == "version-conflict":
            assert answer.headers["retry-after"] == "1"
        after = await read(api, wallet)
        assert (after["version"], after["balance"]) == ((3, "1.00") if code == 200 else (2, "0.00"))
    await holder.close()


async def test_a_transfer_in_a_deadlock_with_another_session_is_run_again(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    until_blocked: UntilBlocked,
    retries: Retries,
    assert_promises_kept: Check,
) -> None:
    low, high = sorted([await new_wallet(balance="5"), await new_wallet()], key=lambda wallet: wallet["id"])
    stranger, deadlocks = await asyncpg.connect(database_url), retries("40P01")
    lock = "SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE"
    # The API's session is the one that looks for a deadlock, after one second, and so the one that ends it.
    await stranger.execute("SET deadlock_timeout = '60s'")
    async with open_client(**PATIENT) as api:
        async with stranger.transaction():
            await stranger.execute(lock, UUID(high["id"]))
            asked = asyncio.create_task(transfer(api, low, high))
            await until_blocked()
            await asyncio.wait_for(stranger.execute(lock, UUID(low["id"])), 30)
        assert (await asked).status_code == 200
    await stranger.close()
    assert retries("40P01") == deadlocks + 1
    await assert_promises_kept()


async def test_a_request_whose_client_disconnects_leaves_no_effect_and_no_lock(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    until_idle: Check,
    eventually: Eventually,
    retries: Retries,
    assert_promises_kept: Check,
) -> None:
    ada, bob = await new_wallet("ada", balance="5"), await new_wallet("bob")
    holder, tries = await asyncpg.connect(database_url), retries("wallet-busy")

    async def tried_again() -> bool:
        return retries("wallet-busy") > tries + 2

    async with open_client(**{**PATIENT, "batch_lock_timeout_seconds": 0.02, "database_pool_size": 1}) as api:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            asked = asyncio.create_task(transfer(api, ada, bob))
            await eventually(tried_again)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            # A batch in progress goes on without the client.
            await until_idle()
        assert await read(api, ada) == ada
        assert (await transfer(api, ada, bob)).json()["version"] == ada["version"] + 1
    await holder.close()
    await assert_promises_kept()


async def test_the_ledger_shows_every_movement_whose_reply_was_sent(
    apis: list[AsyncClient], new_wallet: NewWallet
) -> None:
    wallet = await new_wallet()
    for number in range(1, 10):
        writer, reader = apis[number % 3], apis[(number + 1) % 3]
        funded = (await fund(writer, wallet)).json()
        newest = (await reader.get(f"/wallets/{wallet['id']}/transactions?limit=1")).json()["items"][0]
        assert newest["transaction_id"] == funded["transaction_id"]
        assert (await read(reader, wallet))["version"] == funded["version"] == number + 1


async def test_a_transaction_that_fails_says_whether_its_commit_had_begun(
    engine: AsyncEngine, sql: Sql, assert_promises_kept: Check
) -> None:
    """A constraint that is checked at each statement, and then only in the commit."""
    await sql("ALTER TABLE wallet.outbox ADD CONSTRAINT once UNIQUE (event_type) DEFERRABLE")
    await execute(engine, create_wallets, [CREATE])
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(engine, create_wallets, [CREATE])
    await sql("ALTER TABLE wallet.outbox DROP CONSTRAINT once")
    await sql("ALTER TABLE wallet.outbox ADD CONSTRAINT once UNIQUE (event_type) DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(OutcomeUnknown) as unknown:
        await execute(engine, create_wallets, [CREATE])
    assert isinstance(unknown.value.__cause__, asyncpg.UniqueViolationError)
    await assert_promises_kept()


async def test_while_outbox_ids_begin_below_those_that_are_there_nothing_is_done_and_the_answer_is_503(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    # More rows than a request's attempts take ids.
    wallets = [await new_wallet() for _ in range(12)]
    await sql("SELECT setval('wallet.outbox_id_seq', 1, false)")
    problem = assert_problem(await fund(client, wallets[0]), 503, "unavailable")
    assert "numbers new events below" in problem["detail"]
    await sql("SELECT setval('wallet.outbox_id_seq', (SELECT max(id) FROM wallet.outbox))")
    assert (await fund(client, wallets[0])).json()["balance"] == "1.00"


@pytest.mark.parametrize("moment", ["api.before_commit", "api.committed"])
async def test_a_failure_after_the_commit_is_never_taken_for_one_before_it(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setitem(failpoints._armed, moment, Failpoint("error"))
    with pytest.raises(OutcomeUnknown if moment == "api.committed" else FailpointError):
        await execute(engine, create_wallets, [CREATE])


async def test_what_decided_nothing_has_an_outcome_though_its_rollback_gets_no_answer(
    linked_database_url: str, database_link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback has a deadline of its own, so that later requests have their time."""
    monkeypatch.setattr(raw_sql, "_ROLLBACK_SECONDS_MAX", 0.1)

    async def refuse(_: asyncpg.Connection, commands: Sequence[CreateWallet]) -> list[Reply]:
        return [problem_reply(WalletBusy(), command.path) for command in commands]

    engine = create_engine(linked_database_url, "tests", pool_size=1)
    await execute(engine, create_wallets, [CREATE])
    database_link.forget_at = lambda piece: b"ROLLBACK" in piece
    (reply,) = await execute(engine, refuse, [CREATE], timeout_seconds=2)
    assert reply.outcome == WalletBusy.code
    assert database_link.forget_at is None
    (reply,) = await execute(engine, create_wallets, [CREATE])
    assert reply.outcome == DONE
    await engine.dispose()
