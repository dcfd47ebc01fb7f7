"""Group commit: requests share a transaction, and a failing request does not fail the other requests."""

import asyncio
import json
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import LogCapture

from common import failpoints
from common.access.caller import ANONYMOUS
from common.failpoints import Failpoint
from common.postgres.engine import create_engine
from common.postgres.raw_sql import raw_connection
from common.problems import Unavailable
from common.rate_limited_logs import RateLimitedLog
from wallet_api.commands import IdempotencyClaim, IdempotencyKey
from wallet_api.errors import IdempotencyKeyInFlight, InsufficientFunds, VersionConflict, WalletBusy, WalletNotFound
from wallet_api.group_commit import group_commit
from wallet_api.group_commit.command_retry import CommandRetry
from wallet_api.group_commit.group_commit import Bounds, GroupCommit
from wallet_api.operations.fund import Fund
from wallet_api.operations.transfer import Transfer
from wallet_api.replies import DONE, Reply, problem_reply
from wallet_api.use_cases.use_cases import run_operations

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
Eventually = Callable[..., Awaitable[Any]]
UntilBlocked = Callable[..., Awaitable[None]]
Check = Callable[[], Awaitable[None]]

COMMON: Json = {
    "caller": ANONYMOUS,
    "path": "/x",
    "traceparent": None,
    "metadata": {},
    "currency": None,
    "reference": None,
}
PATIENT: Json = {
    "batch_commands": 128,
    "queue_commands": 512,
    "queue_batch_operations": 1000,
    "transaction_timeout_seconds": 90,
}


def a_fund(wallet_id: UUID, key: str | None = None, amount: str = "1", caller_id: str = "") -> Fund:
    claim = IdempotencyClaim(IdempotencyKey(caller_id, key), b"h") if key else None
    return Fund(**COMMON, claim=claim, wallet_id=wallet_id, amount=amount, if_match=None)


def a_transfer(sender: UUID, receiver: UUID, amount: str = "1") -> Transfer:
    return Transfer(**COMMON, claim=None, wallet_id=sender, to_wallet_id=receiver, amount=amount, if_match=None)


def version_of(reply: Reply) -> int:
    version: int = json.loads(reply.body)["version"]
    return version


class Batches:
    """A use case that notes its batches, and can be blocked or made to fail."""

    def __init__(self, use_case: Callable[..., Awaitable[list[Reply]]]) -> None:
        self.use_case = use_case
        self.seen: list[list[Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None

    async def __call__(self, connection: asyncpg.Connection, commands: Sequence[Any]) -> list[Reply]:
        self.seen.append(list(commands))
        await self.open.wait()
        if self.error:
            raise self.error
        return await self.use_case(connection, commands)

    @property
    def sizes(self) -> list[int]:
        return [len(commands) for commands in self.seen]


Collect = Callable[..., GroupCommit[Any]]


@pytest.fixture
def batches() -> Batches:
    return Batches(run_operations)


@pytest.fixture
async def collect(database_url: str) -> AsyncIterator[Collect]:
    """Make group commits on an engine like the API's, with a short lock timeout."""
    engine = create_engine(database_url, "wallet-api", lock_timeout_seconds=0.1)
    collectors: list[GroupCommit[Any]] = []

    def make(
        use_case: Any = run_operations,
        skipping: Any = None,
        version_attempts_max: int = 1000,
        busy_seconds_max: float = 60,
        **bounds: float,
    ) -> GroupCommit[Any]:
        skipping = skipping or partial(run_operations, skip_locked=True)
        retry = CommandRetry(version_attempts_max, busy_seconds_max)
        collector = GroupCommit(
            "fund", engine, use_case, skipping, Bounds(**{**PATIENT, **bounds}), retry, lambda _: None
        )
        collectors.append(collector)
        return collector

    yield make
    for collector in collectors:
        await collector.close()
    await engine.dispose()


@pytest.fixture
async def wallets(new_wallet: NewWallet) -> list[UUID]:
    """Five wallets at version 2, with 10 in each."""
    return [UUID((await new_wallet(f"user-{number}", balance="10"))["id"]) for number in range(5)]


@pytest.fixture
async def holder(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session that is not the API's."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def submitted(collector: GroupCommit[Any], commands: Sequence[Any]) -> list[asyncio.Task[Reply]]:
    """Submit the commands at once: all are in the queue, or in a batch, when this returns."""
    tasks = [asyncio.create_task(collector.submit(command)) for command in commands]
    await asyncio.sleep(0)
    return tasks


async def within(coroutine: Coroutine[Any, Any, Any] | asyncio.Future[Any], seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        return await coroutine


async def versions(sql: Sql) -> dict[UUID, int]:
    return {row["id"]: row["version"] for row in await sql("SELECT id, version FROM wallet.wallets")}


LOCK = "SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE"


async def test_requests_under_way_together_share_a_transaction_and_the_first_does_not_wait(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql, assert_promises_kept: Check
) -> None:
    collector = collect(batches)
    batches.open.clear()
    first = await submitted(collector, [a_fund(wallets[0])])
    await within(until(lambda: batches.sizes == [1]))
    others = await submitted(collector, [a_fund(wallet, f"key-{wallet}") for wallet in wallets])
    batches.open.set()
    await within(asyncio.gather(*first, *others))
    assert batches.sizes == [1, 5]
    rows = await sql("SELECT xmin::text FROM wallet.outbox WHERE event_type = 'WALLET_FUNDED' ORDER BY id DESC LIMIT 6")
    transactions = Counter(row["xmin"] for row in rows)
    assert sorted(transactions.values()) == [1, 5]
    await assert_promises_kept()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def test_a_batch_is_never_larger_than_its_bound(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql
) -> None:
    collector = collect(batches, batch_commands=4)
    tasks = await submitted(collector, [a_fund(wallets[0])] * 10)
    outcomes = await within(asyncio.gather(*tasks))
    assert sum(batches.sizes) == 10
    assert max(batches.sizes) == 4
    assert sorted(map(version_of, outcomes)) == list(range(3, 13))
    assert (await versions(sql))[wallets[0]] == 12


async def test_a_refused_command_leaves_those_beside_it_alone(
    collect: Collect, wallets: list[UUID], assert_promises_kept: Check
) -> None:
    batches = Batches(run_operations)
    collector = collect(batches, partial(run_operations, skip_locked=True))
    commands = [
        a_transfer(wallets[0], wallets[1], "10"),
        a_transfer(wallets[0], wallets[1], "0.01"),
        a_transfer(uuid4(), wallets[1]),
        a_transfer(wallets[2], wallets[3]),
    ]
    outcomes = await within(asyncio.gather(*await submitted(collector, commands)))
    assert batches.sizes == [4]
    assert [version_of(outcomes[0]), version_of(outcomes[3])] == [3, 3]
    assert [outcomes[1].outcome, outcomes[2].outcome] == [InsufficientFunds.code, WalletNotFound.code]
    await assert_promises_kept()


async def test_many_funds_of_one_hot_wallet_add_up_and_raise_its_version_by_one_each(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql, assert_promises_kept: Check
) -> None:
    outcomes = await within(asyncio.gather(*await submitted(collect(batches), [a_fund(wallets[0])] * 60)))
    assert batches.sizes == [60]
    assert [version_of(outcome) for outcome in outcomes] == list(range(3, 63))
    rows = await sql("SELECT balance_minor, version FROM wallet.wallets WHERE id = $1", wallets[0])
    assert [tuple(row) for row in rows] == [(7000, 62)]
    await assert_promises_kept()


async def test_a_poisoned_command_fails_alone_and_those_beside_it_are_done_once(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql
) -> None:
    """A wallet that has lost its newest version, so that the ledger refuses its next movement."""
    await sql("UPDATE wallet.wallets SET version = 1 WHERE id = $1", wallets[2])
    commands = [a_fund(wallet) for wallet in wallets] * 2
    tasks = await submitted(collect(batches), commands)
    await within(asyncio.wait(tasks))
    assert batches.sizes[0] == 10
    failed = [command.wallet_id for command, task in zip(commands, tasks, strict=True) if task.exception()]
    assert failed == [wallets[2]] * 2
    assert "wallet_version" in str(tasks[2].exception())
    assert await versions(sql) == {wallet: 1 if wallet == wallets[2] else 4 for wallet in wallets}


async def test_a_request_whose_wallet_is_damaged_is_answered_500_and_the_other_requests_as_usual(
    open_client: Callable[..., Any], new_wallet: NewWallet, sql: Sql
) -> None:
    wallets = [await new_wallet(balance="10") for _ in range(4)]
    await sql("UPDATE wallet.wallets SET version = 1 WHERE id = $1", UUID(wallets[1]["id"]))
    async with open_client() as api:
        posts = [api.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"}) for wallet in wallets]
        answers = await asyncio.gather(*posts)
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200]
    assert answers[1].json()["code"] == "internal-error"


@pytest.mark.parametrize("act", ["fund", "transfer"])
async def test_a_wallet_that_another_session_has_locked_delays_only_its_own_commands(
    collect: Collect,
    wallets: list[UUID],
    holder: asyncpg.Connection,
    sql: Sql,
    assert_promises_kept: Check,
    act: str,
) -> None:
    use_case: Any = run_operations
    collector = collect(use_case, partial(use_case, skip_locked=True))

    def a_command(wallet: UUID) -> Any:
        return a_fund(wallet) if act == "fund" else a_transfer(wallet, wallets[4])

    async with holder.transaction():
        await holder.execute(LOCK, wallets[0])
        held = await submitted(collector, [a_command(wallets[0])])
        for _ in range(3):
            others = await submitted(collector, [a_command(wallet) for wallet in wallets[1:4]])
            outcomes = await within(asyncio.gather(*others))
            assert {outcome.outcome for outcome in outcomes} == {DONE}
        assert not held[0].done()
        assert (await versions(sql))[wallets[0]] == 2
    assert version_of(await within(held[0])) == 3
    await assert_promises_kept()


async def test_commands_of_a_locked_wallet_get_wallet_busy_when_their_time_is_up(
    collect: Collect, wallets: list[UUID], holder: asyncpg.Connection, sql: Sql
) -> None:
    collector, clock = collect(busy_seconds_max=0.5), asyncio.get_running_loop().time
    async with holder.transaction():
        await holder.execute(LOCK, wallets[0])
        asked_at = clock()
        tasks = await submitted(collector, [a_fund(wallets[0])] * 20 + [a_fund(wallets[1])])
        outcomes = await within(asyncio.gather(*tasks))
        assert clock() - asked_at >= 0.5
    assert {outcome.outcome for outcome in outcomes[:20]} == {WalletBusy.code}
    assert version_of(outcomes[20]) == 3
    assert await versions(sql) == {wallet: 3 if wallet == wallets[1] else 2 for wallet in wallets}


async def test_one_batch_waits_for_a_held_lock_and_the_next_ones_do_not(
    collect: Collect,
    batches: Batches,
    wallets: list[UUID],
    holder: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_commit, "_SKIP_LOCKED_SECONDS", 600)
    collector = collect(batches)
    async with holder.transaction():
        await holder.execute(LOCK, wallets[0])
        held = await submitted(collector, [a_fund(wallets[0])] * 3)
        for _ in range(5):
            more = await submitted(collector, [a_fund(wallets[0]), a_fund(wallets[1])])
            held.append(more[0])
            await within(more[1])
        assert batches.sizes == [3]
    assert sorted(map(version_of, await within(asyncio.gather(*held)))) == list(range(3, 11))


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_key_that_a_hung_request_has_claimed_delays_only_its_own_command(
    collect: Collect,
    batches: Batches,
    wallets: list[UUID],
    engine: AsyncEngine,
    sql: Sql,
    end: str,
    assert_promises_kept: Check,
) -> None:
    collector = collect(batches)
    async with raw_connection(engine) as hung:
        await hung.execute("BEGIN")
        (first,) = await run_operations(hung, [a_fund(wallets[0], "k")])
        same = (await submitted(collector, [a_fund(wallets[0], "k")]))[0]
        for number in range(3):
            others = [a_fund(wallet, f"{number}-{wallet}") for wallet in wallets[1:]]
            outcomes = await within(asyncio.gather(*await submitted(collector, others)))
            assert [version_of(outcome) for outcome in outcomes] == [3 + number] * 4
        assert not same.done()
        assert collector._skip_locked_until == 0, "a batch ran into a lock"
        await hung.execute(end)
    outcome = await within(same)
    assert (outcome.body == first.body) == (end == "commit")
    assert outcome.headers.get("Idempotent-Replayed") == ("true" if end == "commit" else None)
    assert (await versions(sql))[wallets[0]] == 3
    await assert_promises_kept()


async def test_a_key_that_another_session_writes_delays_only_its_own_command(
    collect: Collect, wallets: list[UUID], holder: asyncpg.Connection, sql: Sql
) -> None:
    """A session that isn't the API's, and writes keys without a claim."""
    async with holder.transaction():
        await holder.execute("INSERT INTO wallet.idempotency_keys (key, request_hash) VALUES ('k', '')")
        tasks = await submitted(
            collect(), [a_fund(wallet, f"key-{wallet}") for wallet in wallets] + [a_fund(wallets[0], "k")]
        )
        done = await within(asyncio.gather(*tasks[:5]))
        assert [version_of(outcome) for outcome in done] == [3] * 5
        assert (await within(tasks[5])).outcome == IdempotencyKeyInFlight.code
    assert await versions(sql) == dict.fromkeys(wallets, 3)


async def test_one_key_many_times_at_once_has_one_effect_and_is_replayed_to_the_other_requests(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql
) -> None:
    commands = [a_fund(wallets[0], "k")] * 4 + [a_fund(wallets[1], "other")]
    outcomes = await within(asyncio.gather(*await submitted(collect(batches), commands)))
    assert batches.sizes == [2, 1, 1, 1]
    replies = outcomes[:4]
    assert len({reply.body for reply in replies}) == 1
    assert [reply.headers.get("Idempotent-Replayed") for reply in replies] == [None, "true", "true", "true"]
    assert await versions(sql) == {wallet: 3 if wallet in wallets[:2] else 2 for wallet in wallets}


async def test_one_key_of_two_callers_is_two_keys_in_one_batch(
    collect: Collect, batches: Batches, wallets: list[UUID]
) -> None:
    commands = [a_fund(wallets[0], "k", caller_id=caller_id) for caller_id in ("ada", "bob")]
    outcomes = await within(asyncio.gather(*await submitted(collect(batches), commands)))
    assert batches.sizes == [2]
    assert [version_of(outcome) for outcome in outcomes] == [3, 4]


async def test_a_full_queue_refuses_at_once_and_nothing_comes_of_the_refused(
    open_client: Callable[..., Any],
    new_wallet: NewWallet,
    holder: asyncpg.Connection,
    eventually: Eventually,
    until_blocked: UntilBlocked,
    assert_problem: Callable[..., Json],
    patient: dict[str, float],
) -> None:
    wallet = await new_wallet()
    path = f"/wallets/{wallet['id']}"
    async with open_client(**patient, queue_commands_max=3) as api:
        line = api._transport.app.state.context.operations._queue.single

        async def is_full() -> bool:
            return bool(line.weight == 3)

        async with holder.transaction():
            await holder.execute(LOCK, UUID(wallet["id"]))
            taken = [asyncio.create_task(api.post(f"{path}/fund", json={"amount": "1"}))]
            await until_blocked()
            taken += [asyncio.create_task(api.post(f"{path}/fund", json={"amount": "1"})) for _ in range(3)]
            await eventually(is_full)
            refused = await api.post(f"{path}/fund", json={"amount": "1"})
            assert_problem(refused, 503, "unavailable")
            assert refused.headers["retry-after"] == "1"
            assert not [task for task in taken if task.done()]
        assert {answer.status_code for answer in await asyncio.gather(*taken)} == {200}
        assert (await api.get(path)).json()["version"] == 5


async def test_a_client_that_leaves_changes_nothing_for_those_beside_it(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql, assert_promises_kept: Check
) -> None:
    collector = collect(batches)
    batches.open.clear()
    under_way = await submitted(collector, [a_fund(wallet) for wallet in wallets[:2]])
    await within(until(lambda: batches.sizes == [2]))
    waiting = await submitted(collector, [a_fund(wallet) for wallet in wallets[2:4]])
    under_way[0].cancel()
    waiting[0].cancel()
    batches.open.set()
    assert version_of(await within(under_way[1])) == version_of(await within(waiting[1])) == 3
    # One command was in a batch and went on without its client; the other was left out.
    assert batches.sizes == [2, 1]
    assert await versions(sql) == dict(zip(wallets, [3, 3, 2, 3, 2], strict=True))
    await assert_promises_kept()


async def test_when_all_clients_have_left_nothing_is_run_for_them(
    collect: Collect, batches: Batches, wallets: list[UUID]
) -> None:
    collector = collect(batches)
    batches.open.clear()
    await submitted(collector, [a_fund(wallets[0])])
    await within(until(lambda: batches.sizes == [1]))
    left = await submitted(collector, [a_fund(wallet) for wallet in wallets])
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    batches.open.set()
    assert version_of(await within(collector.submit(a_fund(wallets[1])))) == 3
    assert batches.sizes == [1, 1]
    assert not collector._queue.single.weight
    assert not collector._unanswered


TERMINATE = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'wallet-api' AND wait_event_type = 'Lock'"
)


async def test_a_database_that_goes_away_under_a_batch_fails_all_of_it_and_nothing_is_done(
    open_client: Callable[..., Any],
    new_wallet: NewWallet,
    holder: asyncpg.Connection,
    sql: Sql,
    until_blocked: UntilBlocked,
    assert_problem: Callable[..., Json],
    assert_promises_kept: Check,
    patient: dict[str, float],
) -> None:
    wallets = [await new_wallet() for _ in range(4)]
    async with open_client(**patient) as api:
        posts = [partial(api.post, f"/wallets/{wallet['id']}/fund", json={"amount": "1"}) for wallet in wallets]
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            tasks = [asyncio.create_task(post()) for post in posts]
            await until_blocked()
            await sql(TERMINATE)
            for answer in await within(asyncio.gather(*tasks)):
                assert_problem(answer, 503, "unavailable")
                assert answer.headers["retry-after"] == "1"
        assert set((await versions(sql)).values()) == {1}
        assert [answer.status_code for answer in await asyncio.gather(*(post() for post in posts))] == [200] * 4
    assert set((await versions(sql)).values()) == {2}
    await assert_promises_kept()


async def test_a_connection_that_breaks_in_the_commit_leaves_a_batch_unknown_and_it_is_not_run_again(
    collect: Collect,
    batches: Batches,
    wallets: list[UUID],
    sql: Sql,
    holder: asyncpg.Connection,
    until_blocked: UntilBlocked,
) -> None:
    await hold_commits(sql)
    collector = collect(batches)
    async with holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock(42)")
        tasks = await submitted(collector, [a_fund(wallet) for wallet in wallets])
        await until_blocked()
        await sql(TERMINATE)
        await within(asyncio.wait(tasks))
    assert {type(task.exception()) for task in tasks} == {Unavailable}
    assert batches.sizes == [5]
    assert await versions(sql) == dict.fromkeys(wallets, 2)
    outcomes = await within(asyncio.gather(*await submitted(collector, [a_fund(wallet) for wallet in wallets])))
    assert [version_of(outcome) for outcome in outcomes] == [3] * 5


async def hold_commits(sql: Sql) -> None:
    """Let each commit of events wait for the advisory lock 42, without a lock timeout."""
    await sql(
        "CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$"
    )
    await sql(
        "CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON wallet.outbox"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_in_commit()"
    )


async def test_a_batch_whose_commit_was_not_confirmed_is_never_run_again(
    collect: Collect,
    batches: Batches,
    wallets: list[UUID],
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    assert_promises_kept: Check,
) -> None:
    """It was committed, and then something failed: run again, without keys, it would move the money twice."""
    collector = collect(batches)
    with monkeypatch.context() as patched:
        patched.setitem(failpoints._armed, "api.committed", Failpoint("error"))
        tasks = await submitted(collector, [a_fund(wallet) for wallet in wallets])
        await within(asyncio.wait(tasks))
    assert {type(task.exception()) for task in tasks} == {Unavailable}
    assert batches.sizes == [5]
    assert await versions(sql) == dict.fromkeys(wallets, 3)
    assert version_of(await within(collector.submit(a_fund(wallets[0])))) == 4
    await assert_promises_kept()


async def test_a_transaction_that_takes_too_long_is_abandoned_and_not_run_again(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql
) -> None:
    collector = collect(batches, transaction_timeout_seconds=0.2)
    batches.open.clear()
    tasks = await submitted(collector, [a_fund(wallet) for wallet in wallets])
    await within(asyncio.wait(tasks))
    assert {type(task.exception()) for task in tasks} == {Unavailable}
    assert batches.sizes == [5]
    assert await versions(sql) == dict.fromkeys(wallets, 2)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a defect"), TimeoutError(), OSError("away"), asyncpg.LockNotAvailableError("a table is locked")],
    ids=repr,
)
async def test_a_collector_goes_on_after_any_failure(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql, error: Exception
) -> None:
    collector = collect(batches, batches)
    batches.error = error
    tasks = await submitted(collector, [a_fund(wallet) for wallet in wallets])
    await within(asyncio.wait(tasks))
    if isinstance(error, asyncpg.LockNotAvailableError):
        assert {task.result().outcome for task in tasks} == {WalletBusy.code}
    else:
        is_away = isinstance(error, OSError | TimeoutError)
        assert {type(task.exception()) for task in tasks} == {Unavailable if is_away else type(error)}
    assert await versions(sql) == dict.fromkeys(wallets, 2)
    batches.error = None
    outcomes = await within(asyncio.gather(*await submitted(collector, [a_fund(wallet) for wallet in wallets])))
    assert [version_of(outcome) for outcome in outcomes] == [3] * 5


async def test_each_request_of_a_batch_that_fails_gets_an_error_of_its_own_and_all_of_them_one_line_in_the_log(
    collect: Collect, batches: Batches, wallets: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LogCapture()
    log = structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(group_commit, "log", RateLimitedLog(log))
    monkeypatch.setattr("common.rate_limited_logs.monotonic", lambda: 1000.0)
    collector = collect(batches, batches)
    batches.error = ConnectionError("away")
    tasks: list[asyncio.Task[Reply]] = []
    for _ in range(3):
        batch = await submitted(collector, [a_fund(wallets[0])] * 128)
        await within(asyncio.wait(batch))
        tasks += batch
    assert len({id(task.exception()) for task in tasks}) == len(tasks) == 384
    assert max(len(list(traceback.walk_tb(error.__traceback__))) for task in tasks if (error := task.exception())) < 9
    assert [(entry["event"], entry["suppressed"]) for entry in seen.entries] == [("batch_failed_server_away", 0)]


async def test_a_cancellation_from_within_a_batch_answers_it_and_those_behind_it_are_done(
    collect: Collect, batches: Batches, wallets: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that cancels a future of its own: the group commit itself was not cancelled."""
    collector = collect(batches)
    batches.error = asyncio.CancelledError()
    batches.open.clear()
    lost = await submitted(collector, [a_fund(wallets[0])])
    await within(until(lambda: batches.sizes == [1]))
    behind = await submitted(collector, [a_fund(wallet) for wallet in wallets])
    with monkeypatch.context() as patched:
        patched.setattr(batches, "use_case", run_operations)
        batches.open.set()
        with pytest.raises(Unavailable, match="outcome is unknown"):
            await within(lost[0])
        batches.error = None
    assert [version_of(outcome) for outcome in await within(asyncio.gather(*behind))] == [3] * 5


async def test_a_command_that_loses_the_race_each_time_is_tried_as_often_as_it_may(
    collect: Collect, wallets: list[UUID]
) -> None:
    async def lost(_: asyncpg.Connection, commands: Sequence[Fund]) -> list[Reply]:
        return [problem_reply(VersionConflict(command.wallet_id), command.path) for command in commands]

    batches = Batches(lost)
    outcome = await within(collect(batches, version_attempts_max=7).submit(a_fund(wallets[0])))
    assert outcome.outcome == VersionConflict.code
    assert batches.sizes == [1] * 7


async def test_commands_without_a_reply_fail_when_the_server_shuts_down(
    collect: Collect, batches: Batches, wallets: list[UUID], sql: Sql, until_idle: Check
) -> None:
    collector = collect(batches)
    batches.open.clear()
    under_way = await submitted(collector, [a_fund(wallets[0])])
    await within(until(lambda: batches.sizes == [1]))
    waiting = await submitted(collector, [a_fund(wallets[1])])
    await within(collector.close())
    for task in under_way + waiting:
        with pytest.raises(Unavailable):
            await within(task)
    await until_idle()
    assert await versions(sql) == dict.fromkeys(wallets, 2)
