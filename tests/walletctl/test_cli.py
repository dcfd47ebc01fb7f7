import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.kafka.topics import set_settings
from common.settings import PipelineSettings
from outbox_relay.operations import replay
from support.history_events import AnyEvent, History, Wallet
from support.outboxes import Outbox
from support.pipelines import tamper
from walletctl.cli import main
from walletctl.console import Exit


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


WalletCtl = Callable[..., Done]


@pytest.fixture
def walletctl(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> WalletCtl:
    """Run the command line as its script does, in a thread, since a test may have an event loop of its own."""

    def run(*arguments: str, **environment: str) -> Done:
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as thread:
            patch.setattr(sys, "argv", ["walletctl", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            error = thread.submit(main).exception()
        assert isinstance(error, SystemExit), error
        output = capfd.readouterr()
        return Done(int(error.code or 0), output.out, output.err)

    return run


def environment(settings: PipelineSettings) -> dict[str, str]:
    return {
        "DATABASE_URL": settings.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
    }


def printed(done: Done) -> Any:
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["stack", "up"],
        ["stack", "status"],
        ["api", "serve"],
        ["relay", "run"],
        ["consumer", "run"],
        ["history", "serve"],
        ["history", "status"],
        ["history", "rebuild"],
        ["history", "dead-letters", "show"],
        ["history", "dead-letters", "retry"],
        ["history", "dead-letters", "prune"],
        ["outbox", "replay"],
        ["outbox", "park"],
        ["outbox", "retry"],
        ["outbox", "skip"],
        ["outbox", "prune"],
        ["db", "migrate"],
        ["restore", "begin"],
        ["restore", "lost"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_help_shows_what_to_type(walletctl: WalletCtl, command: list[str]) -> None:
    done = walletctl(*command, "--help")
    assert done.returncode == Exit.OK
    assert "walletctl" in done.stdout
    assert "Example" in done.stdout or "Start here" in done.stdout


@pytest.mark.parametrize(
    ("command", "environment", "named"),
    [
        (["api", "serve"], {}, "DATABASE_URL"),
        (["api", "serve"], {"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL"),
        (["api", "serve"], {"DATABASE_URL": "postgresql://x/y", "WALLET_API_PORT": "99999"}, "WALLET_API_PORT"),
        (["relay", "run"], {"DATABASE_URL": "postgresql://x/y"}, "KAFKA_BOOTSTRAP_SERVERS"),
        (["consumer", "run"], {"DATABASE_URL": "postgresql://x/y"}, "KAFKA_BOOTSTRAP_SERVERS"),
        (["outbox", "status"], {}, "DATABASE_URL"),
    ],
)
def test_bad_configuration_stops_with_one_line_that_names_the_variable(
    walletctl: WalletCtl, command: list[str], environment: dict[str, str], named: str
) -> None:
    done = walletctl(*command, **environment)
    assert done.returncode == Exit.USAGE
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["outbox", "status"], ["history", "status"], ["db", "migrate"]], ids=" ".join)
def test_a_server_that_is_away_is_one_line_and_exit_code_3(walletctl: WalletCtl, command: list[str]) -> None:
    done = walletctl(*command, DATABASE_URL="postgresql://postgres@127.0.0.1:1/nowhere")
    assert done.returncode == Exit.UNREACHABLE
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_option_is_used_wrongly(walletctl: WalletCtl) -> None:
    assert walletctl("outbox", "list", "--nonsense").returncode == Exit.USAGE


def test_migrate_can_be_repeated_and_status_tells_the_revision(walletctl: WalletCtl, empty_database_url: str) -> None:
    before = walletctl("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert before.returncode == Exit.FOUND_WRONG
    for _ in range(2):
        assert walletctl("db", "migrate", DATABASE_URL=empty_database_url).returncode == Exit.OK
    after = walletctl("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert after.returncode == Exit.OK
    assert all(schema["revision"] == schema["head"] for schema in printed(after)["schemas"])


def test_the_history_may_live_in_another_database(
    walletctl: WalletCtl, empty_database_url: str, database_url: str
) -> None:
    urls = {"DATABASE_URL": database_url, "HISTORY_DATABASE_URL": empty_database_url}
    assert walletctl("db", "migrate", **urls).returncode == Exit.OK
    assert walletctl("db", "status", **urls).returncode == Exit.OK
    assert walletctl("history", "status", "--json", **urls).returncode == Exit.OK
    assert walletctl("history", "status", DATABASE_URL=empty_database_url).returncode == Exit.OK


def test_a_missing_table_says_to_migrate(walletctl: WalletCtl, empty_database_url: str) -> None:
    done = walletctl("outbox", "status", DATABASE_URL=empty_database_url)
    assert done.returncode == Exit.UNREACHABLE
    assert "walletctl db migrate" in done.stderr


async def test_the_outbox_is_listed_shown_and_replayed(walletctl: WalletCtl, database_url: str, outbox: Outbox) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 3, '{"amount": "1.00"}')
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id")
        )
    at = {"DATABASE_URL": database_url}
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


async def test_a_replay_of_more_than_a_thousand_rows_wants_yes(
    walletctl: WalletCtl, database_url: str, outbox: Outbox
) -> None:
    await outbox.write(uuid4(), 1001)
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id")
        )
    at = {"DATABASE_URL": database_url}
    many = walletctl("outbox", "replay", "--all", **at)
    assert many.returncode == Exit.FOUND_WRONG
    assert "1,001 published rows match" in many.stdout
    assert "none was replayed" in many.stdout
    assert "Add --yes" in many.stderr
    assert printed(walletctl("outbox", "status", "--json", **at))["pending"] == 0
    assert walletctl("outbox", "replay", "--all", "--yes", **at).returncode == Exit.OK
    assert printed(walletctl("outbox", "status", "--json", **at))["pending"] == 1001


@pytest.mark.parametrize("done", [0, 2])
async def test_a_replay_that_is_stopped_tells_where_to_go_on(
    walletctl: WalletCtl, database_url: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, done: int
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
    ended = walletctl("outbox", "replay", "--all", DATABASE_URL=database_url)
    assert ended.returncode == Exit.FOUND_WRONG
    assert f"--from-id {ids[done]}" in ended.stderr


async def test_parked_events_are_something_wrong(walletctl: WalletCtl, database_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4())
    assert walletctl("outbox", "status", DATABASE_URL=database_url).returncode == Exit.OK
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox SET parked_at = now()"))
    assert walletctl("outbox", "status", DATABASE_URL=database_url).returncode == Exit.FOUND_WRONG


async def test_outbox_ids_out_of_order_are_something_wrong_and_migrating_mends_them(
    walletctl: WalletCtl, database_url: str, outbox: Outbox
) -> None:
    await outbox.write(uuid4(), 3)
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox_lanes SET low_water = 3"))
        await connection.execute(text("SELECT setval('wallet.outbox_id_seq', 1)"))
    wrong = walletctl("outbox", "status", DATABASE_URL=database_url)
    assert wrong.returncode == Exit.FOUND_WRONG
    assert "walletctl db migrate" in wrong.stderr
    found = printed(walletctl("outbox", "status", "--json", DATABASE_URL=database_url))
    assert (found["stranded"], found["sequence_behind"]) == (3, 2)
    assert walletctl("db", "migrate", DATABASE_URL=database_url).returncode == Exit.OK
    assert walletctl("outbox", "status", DATABASE_URL=database_url).returncode == Exit.OK
    assert [row["id"] for row in await outbox.rows()] == [4, 5, 6]


async def test_a_topic_that_may_lose_events_is_something_wrong(
    walletctl: WalletCtl, settings: PipelineSettings
) -> None:
    at, status = environment(settings), ("history", "status")
    assert walletctl(*status, **at).returncode == Exit.OK
    await set_settings(settings.kafka_bootstrap_servers, settings.kafka_topic, {"cleanup.policy": "compact"})
    wrong = walletctl(*status, **at)
    assert wrong.returncode == Exit.FOUND_WRONG
    assert "kafka-configs.sh" in wrong.stdout
    assert "cleanup.policy=delete" in wrong.stdout
    (line,) = printed(walletctl(*status, "--json", **at))["topics_wrong"]
    assert line in wrong.stdout
    await set_settings(settings.kafka_bootstrap_servers, settings.kafka_topic, {"cleanup.policy": "delete"})
    assert walletctl(*status, **at).returncode == Exit.OK


async def test_an_event_is_parked_skipped_and_its_wallet_released(
    walletctl: WalletCtl, database_url: str, outbox: Outbox
) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 2)
    first, second = [str(row["id"]) for row in await outbox.rows()]
    at = {"DATABASE_URL": database_url}
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


async def test_releasing_every_wallet_wants_yes(walletctl: WalletCtl, database_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4(), 2)
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox SET parked_at = now()"))
    at = {"DATABASE_URL": database_url}
    assert walletctl("outbox", "retry", **at).returncode == Exit.USAGE
    assert walletctl("outbox", "retry", "--all", "--wallet", str(uuid4()), **at).returncode == Exit.USAGE
    refused = walletctl("outbox", "retry", "--all", **at)
    assert (refused.returncode, "--yes" in refused.stderr) == (Exit.FOUND_WRONG, True)
    released = walletctl("outbox", "retry", "--all", "--yes", "--reason", "drill", "--json", **at)
    assert printed(released) == {"released": 2, "wallets": 1}


async def test_old_events_are_pruned_after_a_dry_run(walletctl: WalletCtl, database_url: str, outbox: Outbox) -> None:
    await outbox.write(uuid4(), 3)
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("""
                UPDATE wallet.outbox SET created_at = now() - interval '8 days', kafka_partition = 0, kafka_offset = id,
                    published_at = now() - interval '8 days'
            """)
        )
    at = {"DATABASE_URL": database_url}
    dry = printed(walletctl("outbox", "prune", "--dry-run", "--json", **at))
    assert dry == {"rows": 3, "keys": 0, "dry_run": True}
    none = printed(walletctl("outbox", "prune", "--json", OUTBOX_RETENTION_DAYS="9", **at))
    assert none == {"rows": 0, "keys": 0, "dry_run": False}
    real = walletctl("outbox", "prune", "--older-than-days", "7", "--reason", "room", **at)
    assert "3 published outbox rows and 0 idempotency keys deleted" in " ".join(real.stdout.split())
    assert printed(walletctl("outbox", "list", "--json", **at)) == {"items": []}


def test_dead_letters_are_listed_and_shown(walletctl: WalletCtl, database_url: str) -> None:
    at = {"DATABASE_URL": database_url}
    assert printed(walletctl("history", "dead-letters", "list", "--json", **at)) == {"items": []}
    assert walletctl("history", "dead-letters", "show", "1", **at).returncode == Exit.FOUND_WRONG


async def test_dead_letters_are_retried_and_those_left_are_something_wrong(
    walletctl: WalletCtl, database_url: str, engine: AsyncEngine
) -> None:
    at, retry = {"DATABASE_URL": database_url}, ("history", "dead-letters", "retry")
    assert walletctl(*retry, **at).returncode == Exit.USAGE
    assert walletctl(*retry, "1", "--all", **at).returncode == Exit.USAGE
    assert walletctl(*retry, "1", **at).returncode == Exit.FOUND_WRONG
    assert walletctl(*retry, "--all", **at).returncode == Exit.OK
    ada = Wallet()
    await History(engine).add(ada.created(), Wallet("eve", ada.id).created())
    done = walletctl(*retry, "--reason", "version-conflict", "--json", **at)
    assert done.returncode == Exit.FOUND_WRONG
    assert printed(done) == {
        "count": 1,
        "applied": 0,
        "duplicates": 0,
        "left": 1,
        "reasons": {"version-conflict": 1},
    }
    assert "walletctl verify" in done.stderr
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE history.transaction_events, history.wallet_progress"))
    assert walletctl(*retry, "--all", **at).returncode == Exit.OK
    assert printed(walletctl("history", "dead-letters", "list", "--json", **at)) == {"items": []}


async def test_old_dead_letters_are_pruned_after_a_dry_run_and_conflicts_stay(
    walletctl: WalletCtl, database_url: str, engine: AsyncEngine
) -> None:
    at, prune = {"DATABASE_URL": database_url}, ("history", "dead-letters", "prune")
    nothing = walletctl(*prune, **at)
    assert nothing.returncode == Exit.USAGE
    assert "DEAD_LETTER_RETENTION_DAYS" in nothing.stderr
    ada = Wallet()
    await History(engine).add(ada.created(), Wallet("eve", ada.id).created())
    async with engine.begin() as connection:
        aside = "created_at = now() - interval '10 days'"
        await connection.execute(text(f"UPDATE history.dead_letters SET {aside}"))
        await connection.execute(
            text("""
                INSERT INTO history.dead_letters
                    (topic, partition, "offset", topic_id, headers, reason, detail, created_at)
                SELECT topic, partition, 7 + number, topic_id, headers, 'not-json', '', created_at
                FROM history.dead_letters, generate_series(1, 2) AS number
            """)
        )
    dry = walletctl(*prune, "--older-than-days", "9", "--dry-run", "--json", **at)
    assert printed(dry) == {"dead_letters": 2, "conflicts_kept": 1, "dry_run": True}
    other = walletctl(*prune, "--older-than-days", "9", "--reason", "tombstone", "--json", **at)
    assert printed(other) == {"dead_letters": 0, "conflicts_kept": 0, "dry_run": False}
    assert "0 dead letters deleted" in walletctl(*prune, DEAD_LETTER_RETENTION_DAYS="11", **at).stdout
    done = walletctl(*prune, DEAD_LETTER_RETENTION_DAYS="9", **at)
    assert "2 dead letters deleted; 1 version conflicts" in " ".join(done.stdout.split())
    letters = printed(walletctl("history", "dead-letters", "list", "--json", **at))["items"]
    assert [letter["reason"] for letter in letters] == ["version-conflict"]


def test_a_rebuild_wants_to_be_meant_and_says_what_it_did(
    walletctl: WalletCtl, settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = environment(settings)
    for answer in ("n\n", ""):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(answer))
            assert walletctl("history", "rebuild", "--json", **at).returncode == Exit.FOUND_WRONG
    done = walletctl("history", "rebuild", "--yes", "--json", **at)
    assert done.returncode == Exit.OK
    found = printed(done)
    assert (found["source"], found["missing"], found["dead_letters"]) == ("topic", 0, 0)
    assert sum(found["positions"].values()) == found["records"]
    assert "walletctl verify" in walletctl("history", "rebuild", "--from", "outbox", "--yes", **at).stdout
    missing = walletctl("history", "rebuild", "--from", "topic", "--yes", **{**at, "KAFKA_TOPIC": "nowhere"})
    assert missing.returncode == Exit.FOUND_WRONG
    assert "The history is unchanged" in missing.stderr


async def test_history_status_marks_what_is_an_alarm(
    walletctl: WalletCtl, database_url: str, engine: AsyncEngine
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events: list[AnyEvent] = [ada.created(), ada.funded(), ada.funded(), bob.created()]
    await History(engine).add(events[0], events[2], events[3])
    status = ("history", "status")
    young = walletctl(*status, DATABASE_URL=database_url)
    assert young.returncode == Exit.FOUND_WRONG
    assert "alarm" not in young.stdout.lower()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE history.wallet_progress SET updated_at = now() - interval '31 s'"))
    await History(engine).add(Wallet("eve", bob.id).created())
    old = walletctl(*status, DATABASE_URL=database_url)
    assert "1 wallets miss a version" in old.stdout
    assert "1 events claim a version" in old.stdout
    found = printed(walletctl(*status, "--json", DATABASE_URL=database_url))
    assert (found["gaps"], found["old_gaps"], found["conflicts"]) == (1, 1, 1)
    assert found["oldest_gaps"][0]["is_old"] is True


def test_a_new_epoch_wants_to_be_meant_and_stops_the_history_until_it_is_rebuilt(
    walletctl: WalletCtl, settings: PipelineSettings
) -> None:
    at, begin = environment(settings), ("restore", "begin")
    refused = walletctl(*begin, **at)
    assert refused.returncode == Exit.FOUND_WRONG
    assert "--yes" in refused.stderr
    assert walletctl("history", "status", **at).returncode == Exit.OK
    begun = walletctl(*begin, "--yes", "--reason", "a drill", "--json", **at)
    assert begun.returncode == Exit.OK
    found = printed(begun)
    assert (found["source_epoch"], found["pending"], sorted(found["topic_ends"])) == (2, 0, ["0", "1", "2"])
    stopped = walletctl("history", "status", **at)
    assert stopped.returncode == Exit.FOUND_WRONG
    assert "walletctl history rebuild" in stopped.stdout
    assert printed(walletctl("history", "status", "--json", **at))["is_stopped"] is True
    assert walletctl("history", "rebuild", "--yes", **at).returncode == Exit.OK
    assert walletctl("history", "status", **at).returncode == Exit.OK
    again = walletctl(*begin, "--yes", **at)
    assert "Source epoch 3" in again.stdout
    assert "walletctl restore lost" in again.stdout


async def test_lost_events_are_listed_whole(walletctl: WalletCtl, settings: PipelineSettings) -> None:
    at, lost = environment(settings), ("restore", "lost")
    nothing = walletctl(*lost, "--json", **at)
    assert (nothing.returncode, printed(nothing)) == (Exit.OK, {"count": 0, "items": []})
    await tamper(settings.database_url, "DELETE FROM wallet.wallet_transactions WHERE type = 'TRANSFER'")
    found = walletctl(*lost, "--json", "--limit", "2", **at)
    assert found.returncode == Exit.FOUND_WRONG
    assert printed(found)["count"] > len(printed(found)["items"]) == 2
    item = printed(found)["items"][0]
    assert (item["source_epoch"], item["event"]["event_type"]) == (1, "TRANSFER_DONE")
    shown = walletctl(*lost, **at)
    assert shown.returncode == Exit.FOUND_WRONG
    assert f"Lost events: {printed(found)['count']}" in shown.stdout
