from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import text

from common.tables.roles import Role
from outbox_relay.operations import replay
from support.command_lines import WalletCtl, printed
from support.outboxes import Outbox
from support.roles import Roles
from walletctl.console import Exit


async def test_the_outbox_is_listed_shown_and_replayed(walletctl: WalletCtl, operator_url: str, outbox: Outbox) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 3, '{"amount": "1.00"}')
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id")
        )
    at = {"DATABASE_URL": operator_url}
    listed = printed(walletctl("outbox", "list", "--wallet", str(wallet), "--state", "published", "--json", **at))
    assert len(listed["items"]) == 3
    row_id = str(listed["items"][0]["id"])
    shown = walletctl("outbox", "show", row_id, "--json", **at)
    assert printed(shown)["payload"] == {"amount": "1.00"}
    assert walletctl("outbox", "show", "4711", **at).returncode == Exit.FOUND_WRONG
    assert walletctl("outbox", "show", "nonsense", **at).returncode == Exit.USAGE
    assert walletctl("outbox", "replay", **at).returncode == Exit.USAGE
    dry = printed(walletctl("outbox", "replay", "--all", "--dry-run", "--json", **at))
    assert (dry["matched"], dry["replayed"]) == (3, 0)
    real = printed(walletctl("outbox", "replay", "--all", "--rate", "1000", "--json", **at))
    assert (real["matched"], real["replayed"]) == (3, 3)
    status = printed(walletctl("outbox", "status", "--json", **at))
    assert status["pending"] == 3


async def test_a_replay_of_more_than_a_thousand_rows_needs_yes(
    walletctl: WalletCtl, operator_url: str, outbox: Outbox
) -> None:
    await outbox.write(uuid4(), 1001)
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id")
        )
    at = {"DATABASE_URL": operator_url}
    many = walletctl("outbox", "replay", "--all", **at)
    assert many.returncode == Exit.FOUND_WRONG
    assert "1,001 published rows match" in many.stdout
    assert "none was replayed" in many.stdout
    assert "Add --yes" in many.stderr
    assert printed(walletctl("outbox", "status", "--json", **at))["pending"] == 0
    assert walletctl("outbox", "replay", "--all", "--yes", **at).returncode == Exit.OK
    assert printed(walletctl("outbox", "status", "--json", **at))["pending"] == 1001


@pytest.mark.parametrize("done", [0, 2])
async def test_a_stopped_replay_says_where_to_continue(
    walletctl: WalletCtl, operator_url: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    await outbox.write(uuid4(), 3)
    ids = [row["id"] for row in await outbox.rows()]
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id")
        )

    async def stopped(*_: object, **__: object) -> AsyncIterator[list[int]]:
        if done:
            yield ids[:done]
        raise KeyboardInterrupt

    monkeypatch.setattr(replay, "replay", stopped)
    ended = walletctl("outbox", "replay", "--all", DATABASE_URL=operator_url)
    assert ended.returncode == Exit.FOUND_WRONG
    assert f"--from-id {ids[done]}" in ended.stderr


async def test_parked_events_are_exit_code_1(walletctl: WalletCtl, operator_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4())
    assert walletctl("outbox", "status", DATABASE_URL=operator_url).returncode == Exit.OK
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox SET parked_at = now()"))
    assert walletctl("outbox", "status", DATABASE_URL=operator_url).returncode == Exit.FOUND_WRONG


async def test_outbox_ids_out_of_order_are_exit_code_1_and_migrating_corrects_them(
    walletctl: WalletCtl, operator_url: str, outbox: Outbox, roles: Roles, database_url: str
) -> None:
    await outbox.write(uuid4(), 3)
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox_lanes SET low_water = 3"))
        await connection.execute(text("SELECT setval('wallet.outbox_id_seq', 1)"))
    wrong = walletctl("outbox", "status", DATABASE_URL=operator_url)
    assert wrong.returncode == Exit.FOUND_WRONG
    assert "walletctl db migrate" in wrong.stderr
    found = printed(walletctl("outbox", "status", "--json", DATABASE_URL=operator_url))
    assert (found["stranded"], found["sequence_behind"]) == (3, 2)
    # Privileges on a database are not cloned with it.
    await roles.grant(database_url)
    owner_url = roles.url(database_url, Role.OWNER)
    migrated = walletctl("db", "migrate", DATABASE_URL=owner_url, **roles.environment)
    assert migrated.returncode == Exit.OK, migrated.stderr
    assert walletctl("outbox", "status", DATABASE_URL=operator_url).returncode == Exit.OK
    assert [row["id"] for row in await outbox.rows()] == [4, 5, 6]


async def test_an_event_is_parked_and_skipped_and_its_wallet_retried(
    walletctl: WalletCtl, operator_url: str, outbox: Outbox
) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 2)
    first, second = [str(row["id"]) for row in await outbox.rows()]
    at = {"DATABASE_URL": operator_url}
    assert walletctl("outbox", "park", first, **at).returncode == Exit.USAGE
    assert walletctl("outbox", "park", "4711", "--reason", "x", **at).returncode == Exit.FOUND_WRONG
    assert walletctl("outbox", "skip", first, "--reason", "x", **at).returncode == Exit.FOUND_WRONG
    for row_id in (first, second):
        done = walletctl("outbox", "park", row_id, "--reason", "x", "--json", **at)
        assert printed(done) == {"parked": int(row_id)}
    assert walletctl("outbox", "skip", first, **at).returncode == Exit.USAGE
    skipped = walletctl("outbox", "skip", first, "--reason", "test data", **at)
    assert skipped.returncode == Exit.OK
    assert f"outbox retry --wallet {wallet}" in skipped.stdout
    listed = printed(walletctl("outbox", "list", "--state", "skipped", "--json", **at))
    assert [row["id"] for row in listed["items"]] == [int(first)]
    assert printed(walletctl("outbox", "retry", second, "--json", **at)) == {"released": 1, "wallets": 1}
    assert walletctl("outbox", "status", **at).returncode == Exit.OK
    assert walletctl("outbox", "retry", second, **at).returncode == Exit.FOUND_WRONG


async def test_a_retry_of_all_wallets_needs_yes(walletctl: WalletCtl, operator_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4(), 2)
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox SET parked_at = now()"))
    at = {"DATABASE_URL": operator_url}
    assert walletctl("outbox", "retry", **at).returncode == Exit.USAGE
    assert walletctl("outbox", "retry", "--all", "--wallet", str(uuid4()), **at).returncode == Exit.USAGE
    refused = walletctl("outbox", "retry", "--all", **at)
    assert (refused.returncode, "--yes" in refused.stderr) == (Exit.FOUND_WRONG, True)
    released = walletctl("outbox", "retry", "--all", "--yes", "--reason", "drill", "--json", **at)
    assert printed(released) == {"released": 2, "wallets": 1}


async def test_old_events_are_pruned_after_a_dry_run(walletctl: WalletCtl, operator_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4(), 3)
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("""
                UPDATE wallet.outbox SET created_at = now() - interval '8 days', kafka_partition = 0, kafka_offset = id,
                    published_at = now() - interval '8 days'
            """)
        )
    at = {"DATABASE_URL": operator_url}
    dry = printed(walletctl("outbox", "prune", "--dry-run", "--json", **at))
    assert dry == {"rows": 3, "keys": 0, "dry_run": True}
    none = printed(walletctl("outbox", "prune", "--json", OUTBOX_RETENTION_DAYS="9", **at))
    assert none == {"rows": 0, "keys": 0, "dry_run": False}
    real = walletctl("outbox", "prune", "--older-than-days", "7", "--reason", "room", **at)
    assert "3 published outbox rows and 0 idempotency keys deleted" in " ".join(real.stdout.split())
    assert printed(walletctl("outbox", "list", "--json", **at)) == {"items": []}
