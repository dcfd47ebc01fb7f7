"""What the tables' constraints and triggers refuse."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

WALLET, OTHER = UUID(int=1), UUID(int=2)
NOW = "statement_timestamp()"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    for wallet_id in (WALLET, OTHER):
        await connection.execute(
            "INSERT INTO wallet.wallets (id, user_id, currency) VALUES ($1, 'ada', 'EUR')", wallet_id
        )
    yield connection
    await connection.close()


async def insert_entries(
    database: asyncpg.Connection, *entries: tuple[UUID, int, UUID | None, int, str], version: int = 2
) -> None:
    """Insert `(transaction_id, entry, wallet_id, amount_minor, currency)` in one statement."""
    await database.execute(
        """
        INSERT INTO wallet.wallet_transactions
            (transaction_id, entry, wallet_id, wallet_version, type, amount_minor, currency, balance_after_minor)
        SELECT t, e, w, CASE WHEN w IS NOT NULL THEN $6::bigint END, 'FUND', a, c, CASE WHEN w IS NOT NULL THEN 100 END
        FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::bigint[], $5::text[]) AS row (t, e, w, a, c)
        """,
        *(list(column) for column in zip(*entries, strict=True)),
        version,
    )


async def entry_count(database: asyncpg.Connection) -> int:
    count: int = await database.fetchval("SELECT count(*) FROM wallet.wallet_transactions")
    return count


T, U = uuid4(), uuid4()


async def test_the_ledger_takes_entries_that_sum_to_zero(database: asyncpg.Connection) -> None:
    await insert_entries(database, (T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR"))
    assert await entry_count(database) == 2


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([(T, 1, WALLET, 5, "EUR")], id="one side only"),
        pytest.param([(T, 1, WALLET, 5, "EUR"), (T, 2, None, -4, "EUR")], id="one cent off"),
        pytest.param([(T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "USD")], id="zero over two currencies only"),
        pytest.param([(T, 1, WALLET, 5, "EUR"), (U, 1, None, -5, "EUR")], id="zero over two transactions only"),
        pytest.param(
            [(T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR"), (U, 1, None, 1, "EUR")], id="one of two is wrong"
        ),
        pytest.param(
            [(T, 1, None, 2**63 - 1, "EUR"), (T, 2, None, 2**63 - 1, "EUR"), (T, 3, None, 2, "EUR")],
            id="no wrap-around",
        ),
    ],
)
async def test_the_ledger_refuses_entries_that_do_not_sum_to_zero(
    database: asyncpg.Connection, entries: list[tuple[UUID, int, UUID | None, int, str]]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="not to zero"):
        await insert_entries(database, *entries)
    assert await entry_count(database) == 0


async def test_the_two_sides_of_a_movement_must_come_in_one_statement(database: asyncpg.Connection) -> None:
    for side in [(T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR")]:
        with pytest.raises(asyncpg.CheckViolationError, match="not to zero"):
            await insert_entries(database, side)
    assert await entry_count(database) == 0


UPSERT = """INSERT INTO wallet.wallet_transactions SELECT * FROM wallet.wallet_transactions
    ON CONFLICT (transaction_id, entry) DO UPDATE SET reference = 'x'"""


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE wallet.wallet_transactions SET reference = 'x'",
        "UPDATE wallet.wallet_transactions SET reference = 'x' WHERE false",
        "DELETE FROM wallet.wallet_transactions",
        "DELETE FROM wallet.wallet_transactions WHERE false",
        "TRUNCATE wallet.wallet_transactions",
        "TRUNCATE wallet.wallets CASCADE",
        UPSERT,
    ],
)
async def test_the_ledger_refuses_every_change_with_an_error_even_one_of_no_rows(
    database: asyncpg.Connection, statement: str, with_rows: bool
) -> None:
    if with_rows:
        await insert_entries(database, (T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await database.execute(statement)
    assert await entry_count(database) == (2 if with_rows else 0)


async def test_two_movements_cannot_claim_the_same_version_of_a_wallet(database: asyncpg.Connection) -> None:
    await insert_entries(database, (T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR"))
    with pytest.raises(asyncpg.UniqueViolationError, match="wallet_transactions_wallet_id_wallet_version_key"):
        await insert_entries(database, (U, 1, WALLET, 5, "EUR"), (U, 2, None, -5, "EUR"))


async def test_an_external_id_is_unique_for_one_user_and_may_be_left_out_by_all(database: asyncpg.Connection) -> None:
    insert = "INSERT INTO wallet.wallets (id, user_id, currency, external_id) VALUES (gen_random_uuid(), $1, 'EUR', $2)"
    for user_id, external_id in [("ada", "x"), ("ada", "y"), ("bob", "x"), ("ada", None), ("ada", None)]:
        await database.execute(insert, user_id, external_id)
    with pytest.raises(asyncpg.UniqueViolationError, match="wallets_user_id_external_id_key"):
        await database.execute(insert, "ada", "x")


ENTRY = """INSERT INTO wallet.wallet_transactions
    (transaction_id, entry, wallet_id, wallet_version, type, amount_minor, currency, balance_after_minor) VALUES """
OUTBOX = """INSERT INTO wallet.outbox (event_id, aggregate_id, event_type, payload, created_at, lane,
    published_at, kafka_partition, kafka_offset, parked_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'X', '{}', now(), """
HISTORY = """INSERT INTO history.transaction_events (wallet_id, event_id, event_type, user_id, currency,
    balance_after_minor, event_data, created_at, wallet_version, direction, amount_minor)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'X', 'ada', 'EUR', 0, '{}', now(), """
LIMIT = f"""INSERT INTO wallet.velocity_limits (wallet_id, id, position, since_version, since, window_start,
    direction, "window", amount_minor, used_minor, used_count) VALUES ('{WALLET}', 'a', 1, 2, now(), now(), """
NEW_ID = "gen_random_uuid()"


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE wallet.wallets SET balance_minor = -1", "wallets_within_limits"),
        ("UPDATE wallet.wallets SET held_minor = 1", "wallets_within_limits"),
        ("UPDATE wallet.wallets SET overdraft_limit_minor = 5, balance_minor = -6", "wallets_within_limits"),
        ("UPDATE wallet.wallets SET balance_max_minor = 5, balance_minor = 6", "wallets_within_limits"),
        ("UPDATE wallet.wallets SET held_minor = -1", "wallets_held_check"),
        ("UPDATE wallet.wallets SET overdraft_limit_minor = -1", "wallets_overdraft_limit_check"),
        ("UPDATE wallet.wallets SET balance_max_minor = -1", "wallets_balance_max_check"),
        (f"{LIMIT} 'up', 'day', 1, 0, 0)", "velocity_limits_direction_check"),
        (f"{LIMIT} 'in', 'year', 1, 0, 0)", "velocity_limits_window_check"),
        (f"{LIMIT} 'in', 'day', NULL, 0, 0)", "velocity_limits_limit_check"),
        (f"{LIMIT} 'in', 'day', 1, -1, 0)", "velocity_limits_used_check"),
        (f"{LIMIT} 'in', 'day', 1, 0, -1)", "velocity_limits_used_check"),
        ("UPDATE wallet.wallets SET version = 0", "wallets_version_check"),
        ("UPDATE wallet.wallets SET user_id = ''", "wallets_user_id_check"),
        ("UPDATE wallet.wallets SET user_id = repeat('é', 65)", "wallets_user_id_check"),
        ("UPDATE wallet.wallets SET currency = 'eur'", "wallets_currency_check"),
        ("UPDATE wallet.wallets SET currency = E'EUR\\n'", "wallets_currency_check"),
        ("UPDATE wallet.wallets SET status = 'gone'", "wallets_status_check"),
        ("UPDATE wallet.wallets SET status = 'frozen', blocks = 'some'", "wallets_blocks_check"),
        ("UPDATE wallet.wallets SET blocks = 'all'", "wallets_blocks_check"),
        (f"{ENTRY} ({NEW_ID}, 1, '{WALLET}', NULL, 'FUND', 1, 'EUR', 1)", "wallet_transactions_wallet_check"),
        (f"{ENTRY} ({NEW_ID}, 1, '{WALLET}', 2, 'FUND', 1, 'EUR', NULL)", "wallet_transactions_wallet_check"),
        (f"{ENTRY} ({NEW_ID}, 1, NULL, 2, 'FUND', 1, 'EUR', NULL)", "wallet_transactions_wallet_check"),
        (f"{OUTBOX} -1, NULL, NULL, NULL, NULL)", "outbox_lane_check"),
        (f"{OUTBOX} 64, NULL, NULL, NULL, NULL)", "outbox_lane_check"),
        (f"{OUTBOX} 0, now(), NULL, NULL, NULL)", "outbox_settled_check"),
        (f"{OUTBOX} 0, now(), 1, NULL, NULL)", "outbox_settled_check"),
        (f"{OUTBOX} 0, NULL, 1, 1, NULL)", "outbox_settled_check"),
        (f"{OUTBOX} 0, now(), 1, 1, now())", "outbox_parked_check"),
        (
            """INSERT INTO wallet.outbox (event_id, aggregate_id, event_type, payload, created_at, lane, skipped_at)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'X', '{}', now(), 0, now())""",
            "outbox_skipped_check",
        ),
        ("INSERT INTO wallet.outbox_lanes (lane) VALUES (64)", "outbox_lanes_lane_check"),
        (f"{HISTORY} 0, 'in', 1)", "transaction_events_wallet_version_check"),
        (f"{HISTORY} 1, 'up', 1)", "transaction_events_direction_check"),
        (f"{HISTORY} 1, 'in', 0)", "transaction_events_amount_check"),
        (
            """INSERT INTO history.wallet_progress (wallet_id, user_id, event_count, max_version)
            VALUES (gen_random_uuid(), 'ada', 3, 2)""",
            "wallet_progress_event_count_check",
        ),
        (
            """INSERT INTO history.processed_offsets (consumer_group, topic, partition, next_offset, topic_id)
            VALUES ('g', 't', 0, -1, 'x')""",
            "processed_offsets_next_offset_check",
        ),
    ],
)
async def test_an_invalid_row_is_refused_by_its_check(
    database: asyncpg.Connection, statement: str, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as error:
        await database.execute(statement)
    assert error.value.constraint_name == constraint


async def test_a_ledger_entry_belongs_to_a_wallet_that_exists(database: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await insert_entries(database, (T, 1, uuid4(), 5, "EUR"), (T, 2, None, -5, "EUR"))


async def test_a_wallet_with_entries_cannot_be_deleted(database: asyncpg.Connection) -> None:
    await insert_entries(database, (T, 1, WALLET, 5, "EUR"), (T, 2, None, -5, "EUR"))
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await database.execute("DELETE FROM wallet.wallets WHERE id = $1", WALLET)


async def test_the_order_of_the_outbox_cannot_be_chosen_by_a_client(database: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await database.execute(
            "INSERT INTO wallet.outbox (id, event_id, aggregate_id, lane, event_type, payload, created_at)"
            " VALUES (1, gen_random_uuid(), gen_random_uuid(), 0, 'X', '{}', now())"
        )
