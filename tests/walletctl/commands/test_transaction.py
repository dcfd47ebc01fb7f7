"""`walletctl transaction`: a transaction is shown, and reversed as the operator's role, with an audit row."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from support.command_lines import WalletCtl, printed
from support.pipelines import Wallets, split_money
from walletctl.console import Exit

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]
UNKNOWN = UUID("0198c2a5-0000-7000-8000-000000000001")


@pytest.fixture
async def split(engine: AsyncEngine, wallets: Wallets) -> str:
    """The id of a split of 0.50: 0.20 to one wallet, and 0.30 to the cold one."""
    return str(await split_money(engine, wallets))


async def test_a_transaction_is_shown_and_reversed_with_actor_and_reason(
    walletctl: WalletCtl, at: dict[str, str], split: str, fetch: Fetch
) -> None:
    shown = printed(walletctl("transaction", "show", split, "--json", **at))
    assert (shown["type"], shown["reversible"], len(shown["legs"])) == ("SPLIT", "0.50", 3)
    warm = shown["legs"][1]["wallet_id"]
    reverse = ("transaction", "reverse", split, "--json")
    part = printed(walletctl(*reverse, "--leg", f"{warm}=0.05", "--reason", "a part", "--reference", "case 7", **at))
    assert (part["type"], part["amount"], part["wallet_id"], part["reference"]) == ("REVERSAL", "0.05", warm, "case 7")
    rest = printed(walletctl(*reverse, "--reason", "the rest", **at))
    assert (rest["amount"], rest["reverses_transaction_id"]) == ("0.45", split)
    shown = printed(walletctl("transaction", "show", split, "--json", **at))
    assert [item["transaction_id"] for item in shown["reversed_by"]] == [
        done["transaction_id"] for done in (part, rest)
    ]
    assert (shown["reversed"], shown["reversible"]) == ("0.50", "0.00")
    assert split in walletctl("transaction", "show", split, **at).stdout
    rows = await fetch("SELECT actor, action, wallet_id, transaction_id, reason FROM wallet.wallet_audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("on-call", "reverse", UUID(done["wallet_id"]), UUID(done["transaction_id"]), why)
        for done, why in ((part, "a part"), (rest, "the rest"))
    ]


async def test_a_refused_reversal_is_told_in_one_line_and_is_not_in_the_audit(
    walletctl: WalletCtl, at: dict[str, str], split: str, fetch: Fetch
) -> None:
    before = await fetch("SELECT * FROM wallet.wallets ORDER BY id")
    why = ("--reason", "x")
    for words, code, told in [
        (["reverse", split, "--amount", "0.1", *why], Exit.FOUND_WRONG, "amount: must be left out"),
        (["reverse", split, "--leg", f"{UNKNOWN}=1", *why], Exit.FOUND_WRONG, "legs.0.to_wallet_id"),
        (["reverse", split, "--leg", "x", *why], Exit.USAGE, "--legs.0"),
        (["reverse", split, "--reason", ""], Exit.USAGE, "--reason:"),
        (["reverse", split], Exit.USAGE, "--reason"),
        (["reverse", str(UNKNOWN), *why], Exit.FOUND_WRONG, f"transaction {UNKNOWN} does not exist"),
        (["show", str(UNKNOWN)], Exit.FOUND_WRONG, f"transaction {UNKNOWN} doesn't exist"),
    ]:
        done = walletctl("transaction", *words, **at)
        assert done.returncode == code, (words, done.stderr)
        assert told in done.stderr
    assert await fetch("SELECT * FROM wallet.wallets ORDER BY id") == before
    assert await fetch("SELECT * FROM wallet.wallet_audit") == []
