"""`walletctl wallet hold`: holds as support staff see them, and what they do with them, with an audit row."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from common.postgres.engine import create_engine
from support.command_lines import WalletCtl, printed
from support.pipelines import Wallets, hold_money, move_money
from walletctl.console import Exit

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]
UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"


@pytest.fixture
async def held(database_url: str, wallets: Wallets) -> Wallets:
    """Wallets of which the hot one has two holds of 1.50: an open one, of which 0.25 are captured, and a voided one."""
    engine = create_engine(database_url, "tests")
    await move_money(engine, wallets, rounds=2)
    await hold_money(engine, wallets)
    await engine.dispose()
    return wallets


def listed(walletctl: WalletCtl, at: dict[str, str], wallet: str, *more: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = printed(walletctl("wallet", "hold", "list", wallet, *more, "--json", **at))["items"]
    return found


async def test_holds_are_listed_by_status_and_shown(walletctl: WalletCtl, at: dict[str, str], held: Wallets) -> None:
    hot, cold = str(held["hot"]), str(held["cold"])
    assert sorted(hold["status"] for hold in listed(walletctl, at, hot)) == ["open", "voided"]
    (hold,) = listed(walletctl, at, hot, "--status", "open")
    assert (hold["remaining"], hold["captured"], hold["to_wallet_id"]) == ("1.25", "0.25", cold)
    assert listed(walletctl, at, hot, "--limit", "1")[0]["status"] == "voided"
    assert listed(walletctl, at, cold) == []
    assert printed(walletctl("wallet", "hold", "show", hold["id"], "--json", **at)) == hold
    assert len(hold["transaction_ids"]) == 2
    for words in (["list", hot], ["list", cold], ["show", hold["id"]]):
        shown = walletctl("wallet", "hold", *words, **at)
        assert (shown.returncode, words[1] in shown.stdout) == (Exit.OK, words[0] == "show"), shown
    for words, what in ((["list", UNKNOWN], "wallet"), (["show", UNKNOWN], "hold")):
        missing = walletctl("wallet", "hold", *words, **at)
        assert (missing.returncode, missing.stderr) == (Exit.FOUND_WRONG, f"error: {what} {UNKNOWN} doesn't exist\n")


async def test_a_hold_is_captured_in_parts_and_voided_by_the_operations_of_the_api_with_audit_rows(
    walletctl: WalletCtl, at: dict[str, str], held: Wallets, fetch: Fetch
) -> None:
    hot = str(held["hot"])
    (hold,) = listed(walletctl, at, hot, "--status", "open")
    id_ = hold["id"]
    captured = printed(
        walletctl(
            *("wallet", "hold", "capture", id_, "--amount", "0.20", "--no-final", "--reason", "first parcel"),
            *("--reference", "ticket 12", "--json"),
            **at,
        )
    )
    assert (captured["type"], captured["amount"], captured["reference"]) == ("CAPTURE", "0.20", "ticket 12")
    assert (captured["hold"]["status"], captured["hold"]["remaining"]) == ("open", "1.05")
    shown = walletctl("wallet", "hold", "void", id_, "--reason", "order cancelled", **at)
    assert shown.returncode == Exit.OK, shown.stderr
    assert "order cancelled" in shown.stdout
    assert printed(walletctl("wallet", "hold", "show", id_, "--json", **at))["status"] == "voided"
    rows = await fetch("SELECT actor, action, wallet_id, transaction_id, reason FROM wallet.wallet_audit ORDER BY id")
    _, _, first, second = printed(walletctl("wallet", "hold", "show", id_, "--json", **at))["transaction_ids"]
    assert [tuple(row) for row in rows] == [
        ("on-call", "capture", UUID(hot), UUID(first), "first parcel"),
        ("on-call", "void", UUID(hot), UUID(second), "order cancelled"),
    ]
    events = await fetch("SELECT event_type FROM wallet.outbox ORDER BY id DESC LIMIT 2")
    assert [row["event_type"] for row in reversed(events)] == ["HOLD_CAPTURED", "HOLD_VOIDED"]


async def test_a_capture_takes_all_that_a_hold_reserves_unless_an_amount_is_named(
    walletctl: WalletCtl, at: dict[str, str], held: Wallets
) -> None:
    (hold,) = listed(walletctl, at, str(held["hot"]), "--status", "open")
    done = printed(walletctl("wallet", "hold", "capture", hold["id"], "--reason", "sent", "--json", **at))
    assert (done["amount"], done["hold"]["status"], done["held"]) == ("1.25", "captured", "0.00")


async def test_a_refused_act_on_a_hold_is_told_in_one_line_and_is_not_in_the_audit(
    walletctl: WalletCtl, at: dict[str, str], held: Wallets, fetch: Fetch
) -> None:
    hot = str(held["hot"])
    (is_open,) = [hold["id"] for hold in listed(walletctl, at, hot, "--status", "open")]
    (voided,) = [hold["id"] for hold in listed(walletctl, at, hot, "--status", "voided")]
    before = await fetch("SELECT * FROM wallet.holds ORDER BY id")
    for words, code, told in [
        (["void", voided, "--reason", "x"], Exit.FOUND_WRONG, "is voided"),
        (["capture", voided, "--reason", "x"], Exit.FOUND_WRONG, "is voided"),
        (["capture", is_open, "--amount", "2", "--reason", "x"], Exit.FOUND_WRONG, "1.25"),
        (["capture", is_open, "--amount", "0.001", "--reason", "x"], Exit.FOUND_WRONG, "amount:"),
        (["void", UNKNOWN, "--reason", "x"], Exit.FOUND_WRONG, f"hold {UNKNOWN} does not exist"),
        (["void", is_open, "--reason", ""], Exit.USAGE, "--reason:"),
        (["capture", is_open, "--reason", ""], Exit.USAGE, "--reason:"),
        (["capture", is_open], Exit.USAGE, "--reason"),
        (["list", hot, "--status", "gone"], Exit.USAGE, "--status"),
    ]:
        done = walletctl("wallet", "hold", *words, **at)
        assert done.returncode == code, (words, done.stderr)
        assert told in done.stderr, words
    assert await fetch("SELECT * FROM wallet.holds ORDER BY id") == before
    assert await fetch("SELECT * FROM wallet.wallet_audit") == []
