import io
import sys
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.models import AnyEvent
from common.kafka.topics import set_settings
from common.settings import PipelineSettings
from common.tables.roles import Role
from support.command_lines import WalletCtl, environment, printed
from support.history_events import History, Wallet
from support.roles import Roles
from walletctl.console import Exit


@pytest.fixture
async def consumer_engine(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as a consumer does."""
    async with roles.engine(database_url, Role.CONSUMER) as engine:
        yield engine


async def test_a_topic_that_may_lose_events_is_exit_code_1(walletctl: WalletCtl, settings: PipelineSettings) -> None:
    at, status = environment(settings), ("history", "status")
    assert walletctl(*status, **at).returncode == Exit.OK
    await set_settings(settings.kafka, settings.kafka_topic, {"cleanup.policy": "compact"})
    wrong = walletctl(*status, **at)
    assert wrong.returncode == Exit.FOUND_WRONG
    assert "kafka-configs.sh" in wrong.stdout
    assert "cleanup.policy=delete" in wrong.stdout
    (line,) = printed(walletctl(*status, "--json", **at))["topics_wrong"]
    assert line in wrong.stdout
    await set_settings(settings.kafka, settings.kafka_topic, {"cleanup.policy": "delete"})
    assert walletctl(*status, **at).returncode == Exit.OK


def test_dead_letters_are_listed_and_shown(walletctl: WalletCtl, operator_url: str) -> None:
    at = {"DATABASE_URL": operator_url}
    assert printed(walletctl("history", "dead-letters", "list", "--json", **at)) == {"items": []}
    assert walletctl("history", "dead-letters", "show", "1", **at).returncode == Exit.FOUND_WRONG


async def test_dead_letters_are_retried_and_those_left_are_exit_code_1(
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine, consumer_engine: AsyncEngine
) -> None:
    at, retry = {"DATABASE_URL": operator_url}, ("history", "dead-letters", "retry")
    assert walletctl(*retry, **at).returncode == Exit.USAGE
    assert walletctl(*retry, "1", "--all", **at).returncode == Exit.USAGE
    assert walletctl(*retry, "1", **at).returncode == Exit.FOUND_WRONG
    assert walletctl(*retry, "--all", **at).returncode == Exit.OK
    ada = Wallet()
    await History(consumer_engine).add(ada.created(), Wallet("eve", ada.id).created())
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


async def test_old_dead_letters_are_pruned_after_a_dry_run_and_conflicts_are_kept(
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine, consumer_engine: AsyncEngine
) -> None:
    at, prune = {"DATABASE_URL": operator_url}, ("history", "dead-letters", "prune")
    nothing = walletctl(*prune, **at)
    assert nothing.returncode == Exit.USAGE
    assert "DEAD_LETTER_RETENTION_DAYS" in nothing.stderr
    ada = Wallet()
    await History(consumer_engine).add(ada.created(), Wallet("eve", ada.id).created())
    async with engine.begin() as connection:
        aged = "created_at = now() - interval '10 days'"
        await connection.execute(text(f"UPDATE history.dead_letters SET {aged}"))
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


def test_a_rebuild_needs_confirmation_and_reports_its_result(
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
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine, consumer_engine: AsyncEngine
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events: list[AnyEvent] = [ada.created(), ada.funded(), ada.funded(), bob.created()]
    await History(consumer_engine).add(events[0], events[2], events[3])
    status = ("history", "status")
    young = walletctl(*status, DATABASE_URL=operator_url)
    assert young.returncode == Exit.FOUND_WRONG
    assert "alarm" not in young.stdout.lower()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE history.wallet_progress SET updated_at = now() - interval '31 s'"))
    await History(consumer_engine).add(Wallet("eve", bob.id).created())
    old = walletctl(*status, DATABASE_URL=operator_url)
    assert "1 wallets miss a version" in old.stdout
    assert "1 events claim a version" in old.stdout
    found = printed(walletctl(*status, "--json", DATABASE_URL=operator_url))
    assert (found["gaps"], found["old_gaps"], found["conflicts"]) == (1, 1, 1)
    assert found["oldest_gaps"][0]["is_old"] is True
