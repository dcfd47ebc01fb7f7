"""Lists of commands: one transaction for all, and an own reply to each."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS, Caller
from common.postgres.raw_sql import raw_connection
from wallet_api.commands import CreateWallet, IdempotencyClaim, IdempotencyKey
from wallet_api.errors import IdempotencyKeyReused, InsufficientFunds, WalletNotFound
from wallet_api.group_commit.transactions import execute
from wallet_api.operations.fund import Fund
from wallet_api.operations.transfer import Transfer
from wallet_api.replies import DONE, Reply
from wallet_api.use_cases import queries
from wallet_api.use_cases.queries import LoadedWallets
from wallet_api.use_cases.use_cases import create_wallets, run_operations

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
Eventually = Callable[..., Awaitable[Any]]
COMMON: Json = {"path": "/x", "traceparent": None, "metadata": {}}


def claim_of(key: str | None, request: bytes = b"h") -> IdempotencyClaim | None:
    return None if key is None else IdempotencyClaim(IdempotencyKey("", key), request)


def a_fund(
    wallet: Json, amount: str = "1", key: str | None = None, request: bytes = b"h", caller: Caller = ANONYMOUS
) -> Fund:
    return Fund(
        **COMMON,
        caller=caller,
        claim=claim_of(key, request),
        wallet_id=UUID(wallet["id"]),
        amount=amount,
        currency=None,
        reference=None,
        if_match=None,
    )


def a_transfer(sender: Json, receiver: Json, amount: str = "1", key: str | None = None) -> Transfer:
    return Transfer(
        **COMMON,
        caller=ANONYMOUS,
        claim=claim_of(key),
        wallet_id=UUID(sender["id"]),
        to_wallet_id=UUID(receiver["id"]),
        amount=amount,
        currency=None,
        reference=None,
        if_match=None,
    )


def a_wallet(user_id: str = "ada", external_id: str | None = None, key: str | None = None) -> CreateWallet:
    return CreateWallet(**COMMON, claim=claim_of(key), user_id=user_id, currency="EUR", external_id=external_id)


def told(reply: Reply) -> Any:
    """Return what the reply says: a problem's code, or version and balance."""
    body = json.loads(reply.body)
    return body.get("code") or (body["version"], body["balance"])


def all_told(outcomes: Sequence[Reply]) -> list[Any]:
    return [told(outcome) for outcome in outcomes]


@pytest.fixture
async def wallets(new_wallet: NewWallet) -> dict[str, Json]:
    return {name: await new_wallet(name, balance="10") for name in ("ada", "bob", "cleo")}


NOBODY = {"id": str(uuid4())}


async def test_an_empty_list_has_no_outcomes(engine: AsyncEngine) -> None:
    assert await execute(engine, run_operations, []) == []
    assert await execute(engine, run_operations, []) == []
    assert await execute(engine, create_wallets, []) == []


async def test_a_refused_command_leaves_the_other_commands_of_its_list_alone(
    engine: AsyncEngine, wallets: dict[str, Json]
) -> None:
    ada, bob, cleo = wallets.values()
    outcomes = await execute(
        engine,
        run_operations,
        [
            a_transfer(ada, bob, "4"),
            a_transfer(ada, bob, "6.01"),
            a_transfer(ada, NOBODY),
            a_transfer(ada, ada),
            a_transfer(bob, cleo, "14"),
            a_transfer(bob, cleo, "0.01"),
            a_transfer(cleo, ada, "1.001"),
            a_transfer(cleo, ada, "24"),
        ],
    )
    assert all_told(outcomes) == [
        (3, "6.00"),
        "insufficient-funds",
        "wallet-not-found",
        "same-wallet",
        (4, "0.00"),
        "insufficient-funds",
        "validation-error",
        (4, "0.00"),
    ]


async def test_one_wallet_many_times_in_a_list_moves_step_by_step(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    ada = wallets["ada"]
    outcomes = await execute(engine, run_operations, [a_fund(ada, str(amount)) for amount in range(1, 6)])
    assert all_told(outcomes) == [(3, "11.00"), (4, "13.00"), (5, "16.00"), (6, "20.00"), (7, "25.00")]
    rows = await sql(
        "SELECT wallet_version, amount_minor, balance_after_minor FROM wallet.wallet_transactions"
        " WHERE wallet_id = $1 ORDER BY wallet_version",
        UUID(ada["id"]),
    )
    assert [tuple(row) for row in rows] == [
        (2, 1000, 1000),
        (3, 100, 1100),
        (4, 200, 1300),
        (5, 300, 1600),
        (6, 400, 2000),
        (7, 500, 2500),
    ]
    events = await sql(
        "SELECT event_id, payload FROM wallet.outbox WHERE aggregate_id = $1 ORDER BY id", UUID(ada["id"])
    )
    assert [json.loads(row["payload"])["wallets"][0]["version"] for row in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["event_id"] for row in events] == sorted(row["event_id"] for row in events)


async def test_one_command_object_many_times_in_a_list_is_as_many_commands(
    engine: AsyncEngine, wallets: dict[str, Json]
) -> None:
    outcomes = await execute(engine, run_operations, [a_fund(wallets["ada"])] * 3)
    assert all_told(outcomes) == [(3, "11.00"), (4, "12.00"), (5, "13.00")]


async def test_money_that_arrives_in_a_list_can_be_sent_on_in_the_same_list(
    engine: AsyncEngine, wallets: dict[str, Json], new_wallet: NewWallet
) -> None:
    poor = await new_wallet("poor")
    ada, bob, _ = wallets.values()
    commands = [a_transfer(poor, bob, "5"), a_transfer(ada, poor, "5"), a_transfer(poor, bob, "5")]
    assert all_told(await execute(engine, run_operations, commands)) == ["insufficient-funds", (3, "5.00"), (3, "0.00")]


async def test_a_list_of_creations_names_the_taken_external_ids_also_within_itself(
    engine: AsyncEngine, new_wallet: NewWallet
) -> None:
    await new_wallet("ada", external_id="old")
    outcomes = await execute(
        engine,
        create_wallets,
        [a_wallet(), a_wallet(external_id="new"), a_wallet(external_id="old"), a_wallet(external_id="new"), a_wallet()],
    )
    made = (1, "0.00")
    codes = all_told(outcomes)
    assert codes[0] == codes[4] == made
    assert codes[2] == "external-id-taken"
    assert sorted(map(str, (codes[1], codes[3]))) == ["(1, '0.00')", "external-id-taken"]


async def test_one_key_twice_in_a_list_is_refused_before_anything_is_done(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    before = await sql("SELECT count(*) FROM wallet.outbox")
    for use_case, commands in [
        (run_operations, [a_fund(wallets["ada"], key="k"), a_fund(wallets["bob"], key="k")]),
        (run_operations, [a_transfer(wallets["ada"], wallets["bob"], key="k")] * 2),
        (create_wallets, [a_wallet(key="k"), a_wallet(), a_wallet(key="k")]),
    ]:
        with pytest.raises(ValueError, match="keys of one list must differ"):
            await execute(engine, use_case, commands)  # type: ignore[arg-type]
    assert await sql("SELECT count(*) FROM wallet.outbox") == before
    assert await sql("SELECT FROM wallet.idempotency_keys") == []


async def test_in_one_list_answered_keys_are_replayed_new_ones_done_and_undecided_ones_not_stored(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    ada, bob, _ = wallets.values()
    (first,) = await execute(engine, run_operations, [a_fund(ada, "1", "old")])
    outcomes = await execute(
        engine,
        run_operations,
        [
            a_fund(bob, "2", "new"),
            a_fund(ada, "1", "old"),
            a_fund(ada, "3"),
            a_fund(NOBODY, "1", "lost"),
            a_fund(bob, "1.001", "refused"),
        ],
    )
    assert all_told(outcomes) == [(3, "12.00"), (3, "11.00"), (4, "14.00"), "wallet-not-found", "validation-error"]
    assert outcomes[1].body == first.body
    assert outcomes[1].headers["Idempotent-Replayed"] == "true"
    keys = await sql("SELECT key, reply_status FROM wallet.idempotency_keys ORDER BY key")
    assert [tuple(row) for row in keys] == [("new", 200), ("old", 200), ("refused", 422)]


async def test_a_reused_key_in_a_list_leaves_the_other_commands_alone(
    engine: AsyncEngine, wallets: dict[str, Json]
) -> None:
    ada, bob, _ = wallets.values()
    await execute(engine, run_operations, [a_fund(ada, "1", "old", b"one")])
    outcomes = await execute(engine, run_operations, [a_fund(ada, "1", "old", b"other"), a_fund(bob, "1", "new")])
    assert outcomes[0].outcome == IdempotencyKeyReused.code
    assert told(outcomes[1]) == (3, "11.00")


async def test_a_list_in_which_nothing_was_decided_leaves_no_trace(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    del wallets
    before = await sql("SELECT count(*), max(id) FROM wallet.outbox")
    (outcome,) = await execute(engine, run_operations, [a_fund(NOBODY, key="k")])
    assert outcome.outcome == WalletNotFound.code
    assert await sql("SELECT count(*), max(id) FROM wallet.outbox") == before
    assert await sql("SELECT FROM wallet.idempotency_keys") == []


async def test_a_wallet_that_changed_in_between_costs_only_its_own_commands_of_the_list(
    engine: AsyncEngine,
    wallets: dict[str, Json],
    new_wallet: NewWallet,
    sql: Sql,
    database_url: str,
    eventually: Eventually,
) -> None:
    """A refusal that rests on a movement which isn't written is withdrawn."""
    ada = wallets["ada"]
    brim = await new_wallet("brim")
    commands = [
        a_fund(brim, "92233720368547758.07", "brim-1"),
        a_fund(ada, "1", "ada"),
        a_fund(brim, "1", "brim-2"),
    ]
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("UPDATE wallet.wallets SET version = version + 1 WHERE id = $1", UUID(brim["id"]))
        running = asyncio.create_task(execute(engine, run_operations, commands))
        blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await eventually(lambda: sql(blocked))
    await holder.close()
    assert all_told(await running) == ["version-conflict", (3, "11.00"), "version-conflict"]
    assert [row["key"] for row in await sql("SELECT key FROM wallet.idempotency_keys")] == ["ada"]
    again = await execute(engine, run_operations, [commands[2]])
    assert told(again[0]) == (3, "1.00")


async def test_a_fund_beside_transfers_shares_their_transaction(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    ada, bob, cleo = wallets.values()
    outcomes = await execute(engine, run_operations, [a_transfer(ada, bob), a_fund(bob), a_fund(cleo)])
    assert all_told(outcomes) == [(3, "9.00"), (4, "12.00"), (3, "11.00")]
    rows = await sql("SELECT DISTINCT xmin::text FROM wallet.wallets")
    assert len(rows) == 1


@pytest.mark.parametrize(
    "lock",
    [
        "UPDATE wallet.wallets SET version = version WHERE id = $1",
        "SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE",
    ],
)
async def test_a_fund_waits_for_no_lock_while_its_transaction_holds_those_of_transfers(
    engine: AsyncEngine, wallets: dict[str, Json], database_url: str, lock: str
) -> None:
    """Else two such transactions wait for each other: each for a fund's wallet that the other one has locked."""
    ada, bob, cleo = wallets.values()
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute(lock, UUID(cleo["id"]))
        outcomes = await execute(engine, run_operations, [a_transfer(ada, bob), a_fund(cleo), a_fund(bob)])
        assert all_told(outcomes) == [(3, "9.00"), "wallet-busy", (4, "12.00")]
    await holder.close()
    assert all_told(await execute(engine, run_operations, [a_fund(cleo)])) == [(3, "11.00")]


async def test_a_use_case_leaves_the_commit_to_its_caller(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    ada, bob, _ = wallets.values()
    before = await sql("SELECT id, balance_minor, version FROM wallet.wallets ORDER BY id")
    async with raw_connection(engine) as connection:
        await connection.execute("BEGIN")
        assert all_told(await run_operations(connection, [a_transfer(ada, bob)])) == [(3, "9.00")]
        assert all_told(await run_operations(connection, [a_fund(ada)])) == [(4, "10.00")]
        await connection.execute("ROLLBACK")
    assert await sql("SELECT id, balance_minor, version FROM wallet.wallets ORDER BY id") == before


async def test_a_long_list_is_one_transaction_with_one_time_and_ids_in_its_order(
    engine: AsyncEngine, wallets: dict[str, Json], sql: Sql
) -> None:
    ada, bob, cleo = wallets.values()
    commands = [a_transfer(*pair, "0.01") for pair in [(ada, bob), (bob, cleo), (cleo, ada)] * 100]
    outcomes = await execute(engine, run_operations, commands)
    assert {outcome.outcome for outcome in outcomes} == {DONE}
    rows = await sql(
        "SELECT event_id, created_at, xmin::text, payload FROM wallet.outbox"
        " WHERE event_type = 'TRANSFER_DONE' ORDER BY id"
    )
    assert len({(row["created_at"], row["xmin"]) for row in rows}) == 1
    assert [row["event_id"] for row in rows] == sorted(row["event_id"] for row in rows)
    transactions = [json.loads(row["payload"])["transaction_id"] for row in rows]
    assert transactions == [json.loads(outcome.body)["transaction_id"] for outcome in outcomes]


async def test_an_overdraft_within_a_list_is_refused_at_the_command_that_would_cause_it(
    engine: AsyncEngine, wallets: dict[str, Json]
) -> None:
    ada, bob, _ = wallets.values()
    outcomes = await execute(engine, run_operations, [a_transfer(ada, bob, "3") for _ in range(5)])
    assert [outcome.outcome for outcome in outcomes] == [DONE] * 3 + [InsufficientFunds.code] * 2


@pytest.mark.parametrize(("skip_locked", "code"), [(False, "version-conflict"), (True, "wallet-busy")])
async def test_a_stranger_is_refused_alike_whether_the_wallet_changes_or_is_not_there(
    engine: AsyncEngine,
    wallets: dict[str, Json],
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    skip_locked: bool,
    code: str,
) -> None:
    ada, read_wallets = wallets["ada"], queries.read_wallets

    async def read_before_a_change(connection: asyncpg.Connection, ids: Collection[UUID]) -> LoadedWallets:
        loaded = await read_wallets(connection, ids)
        await sql("UPDATE wallet.wallets SET version = version + 1 WHERE id = $1", UUID(ada["id"]))
        return loaded

    monkeypatch.setattr(queries, "read_wallets", read_before_a_change)
    bob = Caller("key", "bob", frozenset())
    commands = [a_fund(ada), a_fund(ada, caller=bob), a_fund(NOBODY, caller=bob), a_fund(wallets["bob"], caller=bob)]
    outcomes = await execute(engine, partial(run_operations, skip_locked=skip_locked), commands)
    assert all_told(outcomes) == [code, "wallet-not-found", "wallet-not-found", (3, "11.00")]
