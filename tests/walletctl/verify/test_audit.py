"""Each difference between the parts of the pipeline is found by the right check, and by no other."""

import pytest
from sqlalchemy import text

from common.settings import PipelineSettings
from support.pipeline_acts import audit
from support.pipelines import tamper
from walletctl.verify import queries
from walletctl.verify.audit import (
    BALANCES,
    DEAD_LETTERS,
    HISTORY,
    HOLDS,
    LIMITS,
    OUTBOX,
    POSITIONS,
    PROGRESS,
    REVERSALS,
    STATUSES,
    SUMS,
    TOPIC,
    VERSIONS,
)
from walletctl.verify.report import Report

HOT = "(SELECT id FROM wallet.wallets WHERE external_id = 'hot')"
LIMITED = "(SELECT id FROM wallet.wallets WHERE external_id = 'limited')"
EMPTY = "(SELECT id FROM wallet.wallets WHERE external_id = 'empty')"
ONE_ENTRY = f"wallet_id = {HOT} AND wallet_version = 5"
ONE_MOVEMENT = f"transaction_id = (SELECT transaction_id FROM wallet.wallet_transactions WHERE {ONE_ENTRY})"
ONE_WORLD_ENTRY = """
    wallet_id IS NULL AND transaction_id = (SELECT min(transaction_id::text)::uuid FROM wallet.wallet_transactions)
"""
# The event of the hot wallet's version 5: other records lie before and behind it.
ONE_EVENT = f"""
    event_type <> 'WALLET_CREATED' AND aggregate_id = {HOT}
    AND id = (
        SELECT min(id) FROM wallet.outbox WHERE aggregate_id = {HOT}
        AND payload -> 'wallets' -> 0 ->> 'version' = '5'
    )
"""
ONE_ROW = f"wallet_id = {HOT} AND wallet_version = 5"
# The hot wallet pays 0.50: one receiver gets 0.20, and the other one 0.30.
THE_SPLIT = "event_type = 'SPLIT_DONE'"

WALLET_CORRUPTIONS = {
    "a balance too high": (
        "UPDATE wallet.wallets SET balance_minor = balance_minor + 1 WHERE external_id = 'hot'",
        {BALANCES},
    ),
    "a balance without entries": (
        "UPDATE wallet.wallets SET balance_minor = 1 WHERE external_id = 'empty'",
        {BALANCES},
    ),
    "entries of a wallet that is gone": (
        "DELETE FROM wallet.wallets WHERE external_id = 'yen'",
        {BALANCES, OUTBOX, HISTORY},
    ),
    "a movement in another currency than its wallet": (
        f"UPDATE wallet.wallet_transactions SET currency = 'USD' WHERE {ONE_MOVEMENT}",
        {BALANCES, OUTBOX, HISTORY},
    ),
    "a wallet that changed its currency": (
        "UPDATE wallet.wallets SET currency = 'USD' WHERE external_id = 'empty'",
        {OUTBOX, HISTORY},
    ),
    "an unknown currency": (
        "UPDATE wallet.wallets SET currency = 'ZZZ' WHERE external_id = 'hot'",
        {BALANCES, OUTBOX, HISTORY},
    ),
    "the world's side altered": (
        f"UPDATE wallet.wallet_transactions SET amount_minor = amount_minor - 1 WHERE {ONE_WORLD_ENTRY}",
        {SUMS},
    ),
    "two transactions whose differences cancel out": (
        """
        UPDATE wallet.wallet_transactions
        SET amount_minor = amount_minor + CASE transaction_id WHEN earliest THEN 1 ELSE -1 END
        FROM (
            SELECT min(transaction_id::text)::uuid AS earliest, max(transaction_id::text)::uuid AS latest
            FROM wallet.wallet_transactions WHERE wallet_id IS NULL AND currency = 'JPY'
        ) AS chosen
        WHERE wallet_id IS NULL AND transaction_id IN (earliest, latest)
        """,
        {SUMS},
    ),
    "the world's side lost": (f"DELETE FROM wallet.wallet_transactions WHERE {ONE_WORLD_ENTRY}", {SUMS}),
    "an entry's amount altered": (
        f"UPDATE wallet.wallet_transactions SET amount_minor = amount_minor + 1 WHERE {ONE_ENTRY}",
        {BALANCES, SUMS, VERSIONS, OUTBOX, HISTORY},
    ),
    "a movement lost": (
        f"DELETE FROM wallet.wallet_transactions WHERE {ONE_MOVEMENT}",
        {BALANCES, VERSIONS, OUTBOX, HISTORY},
    ),
    "an entry's balance altered": (
        f"UPDATE wallet.wallet_transactions SET balance_after_minor = balance_after_minor + 1 WHERE {ONE_ENTRY}",
        {VERSIONS, OUTBOX, HISTORY},
    ),
    "an entry's transaction altered": (
        f"UPDATE wallet.wallet_transactions SET transaction_id = gen_random_uuid() WHERE {ONE_ENTRY}",
        {SUMS, OUTBOX, HISTORY},
    ),
    "an entry's counterparty altered": (
        f"UPDATE wallet.wallet_transactions SET counterparty_wallet_id = {EMPTY} WHERE {ONE_ENTRY}",
        {OUTBOX, HISTORY},
    ),
    "the counterparty of a split's payer altered": (
        f"UPDATE wallet.wallet_transactions SET counterparty_wallet_id = {EMPTY} WHERE type = 'SPLIT' AND entry = 1",
        {OUTBOX, HISTORY},
    ),
    "the counterparty of a split's receiver lost": (
        "UPDATE wallet.wallet_transactions SET counterparty_wallet_id = NULL WHERE type = 'SPLIT' AND entry = 2",
        {OUTBOX, HISTORY},
    ),
    "an entry's external id altered": (
        "UPDATE wallet.wallet_transactions SET external_id = 'x' WHERE type = 'SPLIT' AND entry = 1",
        {OUTBOX},
    ),
    "an entry's external id lost": (
        "UPDATE wallet.wallet_transactions SET external_id = NULL WHERE external_id IS NOT NULL",
        {OUTBOX},
    ),
    "an external id of a receiver": (
        "UPDATE wallet.wallet_transactions SET external_id = 'x' WHERE type = 'SPLIT' AND entry = 2",
        {OUTBOX},
    ),
    "a wallet's external id altered": (
        "UPDATE wallet.wallets SET external_id = 'x' WHERE external_id = 'yen'",
        {OUTBOX},
    ),
    "a version without an entry": (
        "UPDATE wallet.wallets SET version = version + 1 WHERE external_id = 'hot'",
        {VERSIONS},
    ),
    "a wallet behind its entries": (
        "UPDATE wallet.wallets SET version = 1 WHERE external_id = 'hot'",
        {VERSIONS},
    ),
    "a wallet frozen without an event": (
        "UPDATE wallet.wallets SET status = 'frozen', blocks = 'in' WHERE external_id = 'hot'",
        {STATUSES},
    ),
    "a wallet unfrozen without an event": (
        "UPDATE wallet.wallets SET status = 'active', blocks = NULL WHERE external_id = 'dinar'",
        {STATUSES},
    ),
    "a frozen wallet that blocks something else": (
        "UPDATE wallet.wallets SET blocks = 'all' WHERE external_id = 'dinar'",
        {STATUSES},
    ),
    "the reason of a freeze altered": (
        """UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{reason}', '"another"')
        WHERE type = 'FREEZE'""",
        {OUTBOX},
    ),
    "what a freeze blocks altered": (
        """UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{blocks}', '"in"')
        WHERE type = 'FREEZE'""",
        {STATUSES, OUTBOX},
    ),
    "the reason of a void altered": (
        """UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{reason}', '"another"')
        WHERE type = 'VOID'""",
        {OUTBOX},
    ),
    "a user altered": ("UPDATE wallet.wallets SET user_id = 'eve' WHERE external_id = 'empty'", {OUTBOX, HISTORY}),
}

ONE_VOID = "type = 'VOID' AND entry = 1"
HOLD_CORRUPTIONS = {
    "what a wallet holds altered": (
        "UPDATE wallet.wallets SET held_minor = held_minor + 1 WHERE external_id = 'hot'",
        {BALANCES},
    ),
    "what an entry holds altered": (
        f"UPDATE wallet.wallet_transactions SET held_minor = held_minor - 1 WHERE {ONE_VOID}",
        {BALANCES, SUMS, VERSIONS, HOLDS, LIMITS, OUTBOX, HISTORY},
    ),
    "the world's side of a hold lost": (
        "UPDATE wallet.wallet_transactions SET held_minor = 0 WHERE type = 'VOID' AND entry = 2",
        {SUMS},
    ),
    "what is held after an entry altered": (
        f"UPDATE wallet.wallet_transactions SET held_after_minor = held_after_minor + 1 WHERE {ONE_VOID}",
        {VERSIONS, OUTBOX},
    ),
    "a hold's status altered": ("UPDATE wallet.holds SET status = 'captured' WHERE status = 'open'", {HOLDS}),
    "a hold captured once more": ("UPDATE wallet.holds SET captured_minor = captured_minor + 1", {HOLDS}),
    "a hold for another wallet": (f"UPDATE wallet.holds SET to_wallet_id = {EMPTY} WHERE status = 'open'", {HOLDS}),
    "a hold lost": ("DELETE FROM wallet.holds WHERE status = 'voided'", {HOLDS, LIMITS}),
    "a hold without entries": (
        """
        INSERT INTO wallet.holds
        SELECT (json_populate_record(holds, json_build_object('id', gen_random_uuid()))).* FROM wallet.holds
        WHERE status = 'voided'
        """,
        {HOLDS},
    ),
    "another state of a hold in the ledger than in its event": (
        f"""
        UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{{hold,status}}', '"captured"')
        WHERE {ONE_VOID}
        """,
        {HOLDS, OUTBOX},
    ),
}

# Of 0.25, of a transfer of 0.75.
A_REVERSAL = "type = 'REVERSAL' AND abs(amount_minor) = 25"
REVERSAL_CORRUPTIONS = {
    "more reversed than there was": (
        f"UPDATE wallet.wallet_transactions SET amount_minor = amount_minor * 4 WHERE {A_REVERSAL}",
        {BALANCES, VERSIONS, REVERSALS, OUTBOX, HISTORY},
    ),
    "a reversal of a transaction that is gone": (
        f"UPDATE wallet.wallet_transactions SET reverses_transaction_id = gen_random_uuid() WHERE {A_REVERSAL}",
        {REVERSALS, OUTBOX},
    ),
    "a reversal of another transaction": (
        f"""
        UPDATE wallet.wallet_transactions SET reverses_transaction_id = (
            SELECT transaction_id FROM wallet.wallet_transactions WHERE type = 'TRANSFER' AND amount_minor = -1 LIMIT 1
        ) WHERE {A_REVERSAL}
        """,
        {REVERSALS, OUTBOX},
    ),
    "a reversal of itself": (
        f"UPDATE wallet.wallet_transactions SET reverses_transaction_id = transaction_id WHERE {A_REVERSAL}",
        {REVERSALS, OUTBOX},
    ),
    "a reversal of what is no movement": (
        f"""
        UPDATE wallet.wallet_transactions SET reverses_transaction_id = (
            SELECT transaction_id FROM wallet.wallet_transactions WHERE type = 'VOID' LIMIT 1
        ) WHERE {A_REVERSAL}
        """,
        {REVERSALS, OUTBOX},
    ),
    "a reversal without its link": (
        f"UPDATE wallet.wallet_transactions SET reverses_transaction_id = NULL WHERE {A_REVERSAL}",
        {OUTBOX},
    ),
    "the world's side of a reversal without its link": (
        """
        UPDATE wallet.wallet_transactions SET reverses_transaction_id = NULL
        WHERE type = 'REVERSAL' AND wallet_id IS NULL
        """,
        {REVERSALS},
    ),
    "a movement with a link": (
        f"UPDATE wallet.wallet_transactions SET reverses_transaction_id = gen_random_uuid() WHERE {ONE_MOVEMENT}",
        {REVERSALS, OUTBOX},
    ),
    "the reason of a reversal altered": (
        f"""
        UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{{reason}}', '"another"')
        WHERE {A_REVERSAL} AND entry = 1
        """,
        {OUTBOX},
    ),
    "another link in the event": (
        """
        UPDATE wallet.outbox SET payload = jsonb_set(
            payload::jsonb, '{reverses_transaction_id}', '"0198c2a5-0000-7000-8000-000000000001"'
        )::json WHERE event_type = 'MOVEMENT_REVERSED'
        """,
        {OUTBOX, TOPIC, HISTORY},
    ),
}

_COPY = """
    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
    SELECT event_id, aggregate_id, lane, event_type, payload, created_at FROM wallet.outbox
"""
OUTBOX_CORRUPTIONS = {
    "a row lost": (f"DELETE FROM wallet.outbox WHERE {ONE_EVENT}", {OUTBOX, TOPIC}),
    "a row copied": (f"{_COPY} WHERE {ONE_EVENT}", {OUTBOX}),
    "a creation copied": (f"{_COPY} WHERE aggregate_id = {EMPTY}", {OUTBOX}),
    "an event of an unknown version": (
        f"""
        INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
        SELECT gen_random_uuid(), aggregate_id, lane, event_type,
            replace(payload::text, '"version":5', '"version":5000')::json, created_at
        FROM wallet.outbox WHERE {ONE_EVENT}
        """,
        {OUTBOX},
    ),
    "an amount altered": (
        f"""
        UPDATE wallet.outbox SET payload = replace(payload::text, '"amount":"', '"amount":"1')::json WHERE {ONE_EVENT}
        """,
        {OUTBOX, TOPIC, HISTORY},
    ),
    **{
        f"{what} altered": (
            f"""
            UPDATE wallet.outbox
            SET payload = replace(payload::text, '"amount":"{amount}"', '"amount":"0.40"')::json WHERE {THE_SPLIT}
            """,
            {OUTBOX, TOPIC, HISTORY},
        )
        for what, amount in {"a split's amount": "0.50", "the amount of a split's receiver": "0.20"}.items()
    },
    "the amount of a split's receiver lost": (
        f"""
        UPDATE wallet.outbox SET payload = replace(payload::text, ',"amount":"0.30"', '')::json WHERE {THE_SPLIT}
        """,
        {OUTBOX, TOPIC, HISTORY},
    ),
    "an amount of a split's payer beside the event's": (
        f"""
        UPDATE wallet.outbox
        SET payload = replace(payload::text, '"direction":"out"', '"direction":"out","amount":"0.40"')::json
        WHERE {THE_SPLIT}
        """,
        {TOPIC, HISTORY},
    ),
    "a payload of nonsense": (f"UPDATE wallet.outbox SET payload = '[1]' WHERE {ONE_EVENT}", {OUTBOX, TOPIC}),
    "a payload of other wallets": (
        f'UPDATE wallet.outbox SET payload = \'{{"wallets": [null, 7, {{"version": 1e999}}]}}\' WHERE {ONE_EVENT}',
        {OUTBOX, TOPIC},
    ),
    "a payload that jsonb refuses": (
        f'UPDATE wallet.outbox SET payload = \'{{"wallets": "\\u0000"}}\' WHERE {ONE_EVENT}',
        {OUTBOX, TOPIC},
    ),
    "a space in the payload": (
        f"UPDATE wallet.outbox SET payload = (payload::text || ' ')::json WHERE {ONE_EVENT}",
        {TOPIC, HISTORY},
    ),
    "another event id": (
        f"UPDATE wallet.outbox SET event_id = gen_random_uuid() WHERE {ONE_EVENT}",
        {OUTBOX, TOPIC, HISTORY},
    ),
    "another event type": (f"UPDATE wallet.outbox SET event_type = 'OTHER' WHERE {ONE_EVENT}", {OUTBOX}),
    "another aggregate": (f"UPDATE wallet.outbox SET aggregate_id = {EMPTY} WHERE {ONE_EVENT}", {OUTBOX, TOPIC}),
    "another time": (f"UPDATE wallet.outbox SET created_at = now() WHERE {ONE_EVENT}", {OUTBOX}),
    "an offset beyond the end": (f"UPDATE wallet.outbox SET kafka_offset = 999 WHERE {ONE_EVENT}", {TOPIC}),
    "an offset of another event": (
        f"UPDATE wallet.outbox SET kafka_offset = kafka_offset - 1 WHERE {ONE_EVENT}",
        {TOPIC},
    ),
    "another epoch": (f"UPDATE wallet.outbox SET source_epoch = 2 WHERE {ONE_EVENT}", {TOPIC}),
    "an unknown partition": (f"UPDATE wallet.outbox SET kafka_partition = 99 WHERE {ONE_EVENT}", {TOPIC}),
}

LIMIT_CORRUPTIONS = {
    "an overdraft limit that was never set": (
        "UPDATE wallet.wallets SET overdraft_limit_minor = 1 WHERE external_id = 'empty'",
        {LIMITS},
    ),
    "a ceiling that was never set": (
        "UPDATE wallet.wallets SET balance_max_minor = 0 WHERE external_id = 'empty'",
        {LIMITS},
    ),
    "an overdraft limit raised": (
        "UPDATE wallet.wallets SET overdraft_limit_minor = 1000 WHERE external_id = 'limited'",
        {LIMITS},
    ),
    "a velocity limit raised": ("UPDATE wallet.velocity_limits SET amount_minor = amount_minor + 1", {LIMITS}),
    "a velocity limit that is gone": ("DELETE FROM wallet.velocity_limits WHERE direction = 'in'", {LIMITS}),
    "a velocity limit that is not looked at": (
        "UPDATE wallet.wallets SET has_velocity_limits = false WHERE external_id = 'limited'",
        {LIMITS},
    ),
    "a use that was not counted": ("UPDATE wallet.velocity_limits SET used_minor = used_minor - 1", {LIMITS}),
    "a movement that was not counted": ("UPDATE wallet.velocity_limits SET used_count = used_count - 1", {LIMITS}),
    "a use in another window": (
        "UPDATE wallet.velocity_limits SET window_start = window_start - interval '1 day'",
        {LIMITS},
    ),
    "an overdraft beyond the limit": (
        f"""
        UPDATE wallet.wallet_transactions SET details = jsonb_set(details, '{{overdraft_limit}}', '"0.01"')
        WHERE type = 'LIMITS' AND wallet_id = {LIMITED}
        """,
        {LIMITS, OUTBOX},
    ),
}

HISTORY_CORRUPTIONS = {
    **{
        f"{column} altered": (f"UPDATE history.transaction_events SET {column} = {value} WHERE {ONE_ROW}", {HISTORY})
        for column, value in {
            "event_id": "gen_random_uuid()",
            "event_type": "'OTHER'",
            "user_id": "'eve'",
            "transaction_id": "gen_random_uuid()",
            "direction": "CASE direction WHEN 'in' THEN 'out' ELSE 'in' END",
            "amount_minor": "amount_minor + 1",
            "currency": "'USD'",
            "balance_after_minor": "balance_after_minor + 1",
            "counterparty_wallet_id": "wallet_id",
            "event_data": "'{}'",
            "created_at": "created_at + interval '1 microsecond'",
        }.items()
    },
    "the whole amount in the row of a split's receiver": (
        "UPDATE history.transaction_events SET amount_minor = 50 WHERE event_type = 'SPLIT_RECEIVED'",
        {HISTORY},
    ),
    "a row lost": (f"DELETE FROM history.transaction_events WHERE {ONE_ROW}", {HISTORY, PROGRESS}),
    "a row moved": (
        f"UPDATE history.transaction_events SET wallet_version = 5000 WHERE {ONE_ROW}",
        {HISTORY, PROGRESS},
    ),
    "all rows lost": ("DELETE FROM history.transaction_events", {HISTORY, PROGRESS}),
    "a count altered": (
        f"UPDATE history.wallet_progress SET event_count = event_count - 1 WHERE wallet_id = {HOT}",
        {PROGRESS},
    ),
    "a count lost": (f"DELETE FROM history.wallet_progress WHERE wallet_id = {HOT}", {PROGRESS}),
    "a position beyond the end": ("UPDATE history.processed_offsets SET next_offset = 999", {POSITIONS}),
    "positions of another topic": ("UPDATE history.processed_offsets SET topic_id = 'other'", {POSITIONS}),
    "positions of another epoch": ("UPDATE history.processed_offsets SET source_epoch = 0", {POSITIONS}),
    "a dead letter": (
        """
        INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, headers, reason, detail)
        SELECT topic, partition, 1, topic_id, '[]', 'not-json', 'x' FROM history.processed_offsets WHERE partition = 0
        """,
        {DEAD_LETTERS},
    ),
}


def broken(report: Report) -> set[str]:
    """Return the checks that found differences. Each has a line for one, and the counts agree."""
    found = {check.name for check in report.checks if check.difference_count}
    assert {line.split(": ")[0] for line in report.differences} == found
    assert report.ok == (not found)
    return found


async def test_a_pipeline_at_rest_agrees(settings: PipelineSettings) -> None:
    report = await audit(settings)
    assert report.differences == []
    assert report.ok
    compared = {check.name: check.compared for check in report.checks}
    assert compared[BALANCES] == 7
    assert compared[HOLDS] == 4
    assert compared[LIMITS] == 2
    assert compared[OUTBOX] == compared[HISTORY] == compared[VERSIONS] == 82
    assert compared[REVERSALS] == 3
    assert compared[TOPIC] == report.horizon.last_outbox_id == sum(report.horizon.next_offsets.values())
    assert report.horizon.pending == report.horizon.on_their_way == report.horizon.history_gaps == 0


@pytest.mark.parametrize("corruption", REVERSAL_CORRUPTIONS)
async def test_a_corrupted_reversal_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = REVERSAL_CORRUPTIONS[corruption]
    await tamper(settings.database_url, statement)
    assert broken(await audit(settings)) == expected


@pytest.mark.parametrize("corruption", HOLD_CORRUPTIONS)
async def test_a_corrupted_hold_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = HOLD_CORRUPTIONS[corruption]
    await tamper(settings.database_url, statement)
    assert broken(await audit(settings)) == expected


async def test_a_pipeline_at_rest_is_proved_by_sums_alone(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of event and of entry has the same hash everywhere: no row is compared by itself."""
    by_rows = ("BALANCES", "CURRENCY_SUMS", "TRANSACTION_SUMS", "CHAIN_BREAKS", "LAST_VERSIONS", "LEDGER_AND_OUTBOX")
    for name in (*by_rows, "REPEATED_EVENT_IDS", "PUBLISHED_ROWS", "EXPECTED_HISTORY", "HISTORY", "PROGRESS"):
        monkeypatch.setattr(queries, name, text("SELECT 1 / 0"))
    assert (await audit(settings)).ok


@pytest.mark.parametrize("corruption", LIMIT_CORRUPTIONS)
async def test_a_corrupted_limit_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = LIMIT_CORRUPTIONS[corruption]
    await tamper(settings.database_url, statement)
    assert broken(await audit(settings)) == expected


@pytest.mark.parametrize("corruption", WALLET_CORRUPTIONS)
async def test_a_corrupted_wallet_or_ledger_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = WALLET_CORRUPTIONS[corruption]
    await tamper(settings.database_url, statement)
    assert broken(await audit(settings)) == expected


@pytest.mark.parametrize("corruption", OUTBOX_CORRUPTIONS)
async def test_a_corrupted_outbox_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = OUTBOX_CORRUPTIONS[corruption]
    await tamper(settings.database_url, statement)
    assert broken(await audit(settings)) == expected


@pytest.mark.parametrize("corruption", HISTORY_CORRUPTIONS)
async def test_a_corrupted_history_is_named(settings: PipelineSettings, corruption: str) -> None:
    statement, expected = HISTORY_CORRUPTIONS[corruption]
    await tamper(settings.history_database_url, statement)
    assert broken(await audit(settings)) == expected
