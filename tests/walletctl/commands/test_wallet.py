"""`walletctl wallet`: what support staff see and do, as the operator's role, with a reason and an audit row."""

import csv
import io
import stat
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from common.moments import timestamp
from common.postgres.engine import create_engine
from support.command_lines import WalletCtl, printed
from support.pipelines import Wallets, hold_money, move_money
from walletctl.console import Exit

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]
UNKNOWN = UUID("0198c2a5-0000-7000-8000-000000000001")


async def test_a_wallet_and_its_ledger_are_shown(walletctl: WalletCtl, at: dict[str, str], wallets: Wallets) -> None:
    hot = str(wallets["hot"])
    shown = printed(walletctl("wallet", "show", hot, "--json", **at))
    assert (shown["id"], shown["balance"], shown["status"], shown["blocks"]) == (hot, "0.76", "active", None)
    listed = printed(walletctl("wallet", "ledger", hot, "--limit", "2", "--json", **at))["items"]
    assert [(item["version"], item["amount"]) for item in listed] == [(4, "0.01"), (3, "-0.75")]
    # Whole ids, in a pipe too.
    for command, id_ in (("show", hot), ("ledger", str(wallets["cold"]))):
        assert id_ in walletctl("wallet", command, hot, **at).stdout
        assert walletctl("wallet", command, hot, **at).returncode == Exit.OK
        missing = walletctl("wallet", command, str(UNKNOWN), **at)
        assert (missing.returncode, missing.stderr) == (Exit.FOUND_WRONG, f"error: wallet {UNKNOWN} doesn't exist\n")


async def test_each_act_is_one_of_the_api_and_has_an_audit_row_with_actor_and_reason(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch
) -> None:
    hot, cold = str(wallets["hot"]), str(wallets["cold"])
    acts = [
        ("freeze", ["--blocks", "in", "--reference", "ticket 12"]),
        ("unfreeze", []),
        ("close", ["--sweep-to", cold]),
        ("reopen", []),
    ]
    made = [
        printed(walletctl("wallet", name, hot, *more, "--reason", f"why {name}", "--json", **at)) for name, more in acts
    ]
    assert [done["type"] for done in made] == ["FREEZE", "UNFREEZE", "CLOSE", "REOPEN"]
    assert (made[0]["blocks"], made[0]["reference"], made[2]["sweep"]["amount"]) == ("in", "ticket 12", "0.76")
    rows = await fetch("SELECT actor, action, wallet_id, transaction_id, reason FROM wallet.wallet_audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("on-call", name, UUID(hot), UUID(done["transaction_id"]), f"why {name}")
        for (name, _), done in zip(acts, made, strict=True)
    ]
    events = await fetch("SELECT event_type FROM wallet.outbox ORDER BY id DESC LIMIT 5")
    assert [row["event_type"] for row in reversed(events)] == [
        *("WALLET_FROZEN", "WALLET_UNFROZEN", "TRANSFER_DONE", "WALLET_CLOSED", "WALLET_REOPENED"),
    ]


async def test_a_wallet_with_an_open_hold_is_not_closed_and_an_overdue_hold_is_released_by_the_sweep(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch, database_url: str
) -> None:
    hot, cold = str(wallets["hot"]), str(wallets["cold"])
    engine = create_engine(database_url, "tests")
    await move_money(engine, wallets, rounds=2)
    await hold_money(engine, wallets)
    await engine.dispose()
    close = ("wallet", "close", hot, "--sweep-to", cold, "--reason", "x", "--json")
    refused = walletctl(*close, **at)
    assert refused.returncode == Exit.FOUND_WRONG
    assert "open holds reserve 1.25 of it" in refused.stderr
    await fetch("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE status = 'open'")
    assert printed(walletctl(*close, **at))["held"] == "0.00"
    (row,) = await fetch("SELECT count(*) FROM wallet.holds WHERE status = 'expired'")
    assert row[0] == 1


async def test_a_refused_act_is_told_in_one_line_and_is_not_in_the_audit(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch
) -> None:
    hot = str(wallets["hot"])
    before = await fetch("SELECT * FROM wallet.wallets ORDER BY id")
    for words, code, told in [
        (["unfreeze", hot, "--reason", "x"], Exit.FOUND_WRONG, "is active, not frozen"),
        (["close", hot, "--reason", "x"], Exit.FOUND_WRONG, "has 0.76 EUR"),
        (["reopen", hot, "--reason", "x"], Exit.FOUND_WRONG, "is active, not closed"),
        (["freeze", str(UNKNOWN), "--reason", "x"], Exit.FOUND_WRONG, "does not exist"),
        (["freeze", hot, "--reason", ""], Exit.USAGE, "--reason:"),
        (["freeze", hot], Exit.USAGE, "--reason"),
    ]:
        done = walletctl("wallet", *words, **at)
        assert done.returncode == code, (words, done.stderr)
        assert told in done.stderr
    assert await fetch("SELECT * FROM wallet.wallets ORDER BY id") == before
    assert await fetch("SELECT * FROM wallet.wallet_audit") == []


async def test_without_an_audit_row_nothing_is_done(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch
) -> None:
    await fetch("ALTER TABLE wallet.wallet_audit ADD CHECK (reason <> 'x')")
    done = walletctl("wallet", "freeze", str(wallets["hot"]), "--reason", "x", **at)
    assert done.returncode != Exit.OK
    (row,) = await fetch("SELECT status, version FROM wallet.wallets WHERE id = $1", wallets["hot"])
    assert tuple(row) == ("active", 4)


async def test_limits_are_shown_and_set_in_part_with_an_audit_row(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch, tmp_path: Path
) -> None:
    hot = str(wallets["hot"])
    velocity = tmp_path / "velocity.json"
    velocity.write_text('[{"id": "daily", "direction": "out", "types": ["TRANSFER"], "window": "day", "amount": "5"}]')
    why = ["--reason", "credit line"]
    done = printed(
        walletctl("wallet", "limits", hot, "--overdraft-limit", "9", "--file", str(velocity), *why, "--json", **at)
    )
    assert (done["type"], done["overdraft_limit"], done["velocity"][0]["amount"]) == ("LIMITS", "9.00", "5.00")
    printed(walletctl("wallet", "limits", hot, "--balance-max", "100", *why, "--json", **at))
    printed(walletctl("wallet", "limits", hot, "--balance-max", "none", "--overdraft-limit", "0", *why, "--json", **at))
    shown = printed(walletctl("wallet", "limits", hot, "--json", **at))
    assert (shown["overdraft_limit"], shown["balance_max"]) == ("0.00", None)
    assert [(limit["id"], limit["types"], limit["remaining"]) for limit in shown["velocity"]] == [
        ("daily", ["TRANSFER"], "5.00")
    ]
    assert "daily" in walletctl("wallet", "limits", hot, **at).stdout
    audit = "SELECT actor, action, wallet_id::text, reason FROM wallet.wallet_audit"
    assert [tuple(row) for row in await fetch(audit)] == [("on-call", "limits", hot, "credit line")] * 3
    for wrong, told in {
        ("--overdraft-limit", "1"): "--reason: is needed to set limits",
        ("--overdraft-limit", "x", *why): "overdraft_limit: must be a plain decimal",
        ("--velocity", "[", *why): "--velocity: is not JSON",
        ("--velocity", "{}", *why): "--velocity: Input should be a valid list",
        ("--velocity", "[]", "--file", str(velocity), *why): "give either --velocity or --file",
    }.items():
        refused = walletctl("wallet", "limits", hot, *wrong, **at)
        assert (refused.stderr.count("\n"), refused.returncode in {Exit.USAGE, Exit.FOUND_WRONG}) == (1, True)
        assert told in refused.stderr
    missing = walletctl("wallet", "limits", str(UNKNOWN), **at)
    assert (missing.returncode, missing.stderr) == (Exit.FOUND_WRONG, f"error: wallet {UNKNOWN} doesn't exist\n")


def names_in(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()]


async def test_a_statement_is_that_of_the_route_in_each_format_and_a_file_appears_whole(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, fetch: Fetch, tmp_path: Path
) -> None:
    hot = str(wallets["hot"])
    (last,) = await fetch("SELECT max(created_at) FROM wallet.wallet_transactions WHERE wallet_id = $1", wallets["hot"])
    period = ("--from", "2026-01-01", "--to", timestamp(last[0] + timedelta(microseconds=1)))
    told = printed(walletctl("wallet", "statement", hot, *period, **at))
    assert (told["opening"]["version"], told["closing"]["version"], told["closing"]["balance"]) == (0, 4, "0.76")
    ledger = printed(walletctl("wallet", "ledger", hot, "--json", **at))["items"]
    assert told["entries"] == ledger[::-1]
    as_csv = walletctl("wallet", "statement", hot, *period, "--format", "csv", **at)
    lines = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [line["amount"] for line in lines[1:-1]] == [entry["amount"] for entry in told["entries"]]
    file = tmp_path / "statement.xml"
    done = walletctl("wallet", "statement", hot, *period, "--format", "camt053", "--output", str(file), **at)
    assert (done.returncode, done.stdout) == (Exit.OK, "")
    assert file.read_text().startswith('<?xml version="1.0"')
    assert file.read_text().endswith("</Document>")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == [file.name]


async def test_a_statement_that_is_refused_is_told_in_one_line_and_leaves_no_file(
    walletctl: WalletCtl, at: dict[str, str], wallets: Wallets, tmp_path: Path
) -> None:
    hot, file, january = str(wallets["hot"]), tmp_path / "statement", ["--from", "2026-01-01", "--to"]
    for words, code, told in [
        ([str(UNKNOWN), *january, "2026-02-01"], Exit.FOUND_WRONG, f"wallet {UNKNOWN} doesn't exist"),
        ([hot, *january, "2026-01-01"], Exit.USAGE, "--to: must be after from"),
        ([hot, *january, "2999-01-01"], Exit.USAGE, "--to: must not be in the future"),
        ([hot, *january, "x"], Exit.USAGE, "--to"),
        ([hot, *january, "2026-02-01", "--format", "pdf"], Exit.USAGE, "--format"),
        ([hot, *january, "2026-02-01", "--output", "."], Exit.USAGE, "--output"),
        ([hot, *january, "2026-02-01", "--output", str(tmp_path)], Exit.USAGE, "name a file"),
        ([hot, *january, "2026-02-01", "--output", str(file / "x")], Exit.USAGE, "name an existing path"),
    ]:
        output = [] if "--output" in words else ["--output", str(file)]
        done = walletctl("wallet", "statement", *words, *output, **at)
        assert done.returncode == code, (words, done.stderr)
        assert told in done.stderr
        assert names_in(tmp_path) == []
