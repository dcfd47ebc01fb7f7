"""`walletctl wallet`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.parts import Blocks
from wallet_api import operator_acts
from wallet_api.operations.close import Close
from wallet_api.operations.freeze import Freeze
from wallet_api.operations.operation import Operation
from wallet_api.operations.reopen import Reopen
from wallet_api.operations.set_limits import SetLimits
from wallet_api.operations.unfreeze import Unfreeze
from wallet_api.replies import entry_json, wallet_json
from walletctl.commands import limit_arguments, wallet_hold
from walletctl.commands.wallet_history import history
from walletctl.commands.wallet_statement import statement
from walletctl.console import Exit, JsonOption, fail, print_fields, print_json, print_table
from walletctl.databases import with_wallet_database
from walletctl.wallet_acts import Reason, Reference, act

app = typer.Typer(
    help="Wallets: show them, their ledger, history, holds and statements; freeze, close and reopen them; set limits.",
    no_args_is_help=True,
)
app.add_typer(wallet_hold.app, name="hold")

_COLUMNS: Final = (
    "version",
    "created_at",
    "type",
    "amount",
    "balance_after",
    "held",
    "counterparty_wallet_id",
    "reference",
    "reverses",
)

WalletId = Annotated[UUID, typer.Argument(help="The id of a wallet.", metavar="ID")]


@app.command(epilog="Example:  walletctl wallet show 0198c2a5-…")
def show(wallet_id: WalletId, as_json: JsonOption = False) -> None:
    """Show a wallet; exit 1 if it doesn't exist."""
    found = _find(wallet_id)
    if as_json:
        print_json(found)
    else:
        print_fields("Wallet", found)


@app.command(epilog="Example:  walletctl wallet ledger 0198c2a5-… --limit 20 --json")
def ledger(
    wallet_id: WalletId,
    limit: Annotated[int, typer.Option(help="At most this many entries, the newest.", min=1, max=1000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest entries of a wallet's ledger, newest first; exit 1 if the wallet doesn't exist."""
    _find(wallet_id)

    async def work(engine: AsyncEngine) -> Sequence[RowMapping]:
        return await operator_acts.list_entries(engine, wallet_id, limit)

    entries = [entry_json(row) for row in with_wallet_database(work)]
    if as_json:
        print_json({"items": entries})
    else:
        print_table("Ledger", _COLUMNS, ([entry[column] for column in _COLUMNS] for entry in entries))


app.command(epilog="Example:  walletctl wallet history 0198c2a5-… --type WALLET_FROZEN --from 2026-11-01")(history)


@app.command(epilog="Example:  walletctl wallet freeze 0198c2a5-… --blocks out --reason 'reported as stolen'")
def freeze(
    wallet_id: WalletId,
    reason: Reason,
    blocks: Annotated[Blocks, typer.Option(help="What the wallet refuses: money in, money out, or all.")] = "all",
    reference: Reference = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a wallet, or change what a frozen one blocks. Exit 1 if it is refused."""
    _act(Freeze, wallet_id, reason, as_json, blocks=blocks, reference=reference)


@app.command(epilog="Example:  walletctl wallet unfreeze 0198c2a5-… --reason 'owner called back'")
def unfreeze(wallet_id: WalletId, reason: Reason, reference: Reference = None, as_json: JsonOption = False) -> None:
    """Make a frozen wallet active again. Exit 1 if it is refused."""
    _act(Unfreeze, wallet_id, reason, as_json, reference=reference)


@app.command(epilog="Example:  walletctl wallet close 0198c2a5-… --sweep-to 0198c2a6-… --reason 'account ended'")
def close(
    wallet_id: WalletId,
    reason: Reason,
    sweep_to: Annotated[
        UUID | None, typer.Option(help="Send the whole balance to this wallet before, as a transfer.", metavar="ID")
    ] = None,
    reference: Reference = None,
    as_json: JsonOption = False,
) -> None:
    """Close an empty wallet. Exit 1 if it is refused."""
    receiver = None if sweep_to is None else str(sweep_to)
    _act(Close, wallet_id, reason, as_json, sweep_to_wallet_id=receiver, reference=reference)


@app.command(epilog="Example:  walletctl wallet reopen 0198c2a5-… --reason 'owner is back'")
def reopen(wallet_id: WalletId, reason: Reason, reference: Reference = None, as_json: JsonOption = False) -> None:
    """Make a closed wallet active again. Exit 1 if it is refused."""
    _act(Reopen, wallet_id, reason, as_json, reference=reference)


@app.command(epilog="Example:  walletctl wallet limits 0198c2a5-… --overdraft-limit 100.00 --reason 'credit line'")
def limits(
    wallet_id: WalletId,
    overdraft_limit: Annotated[
        str | None, typer.Option(help="How much more than its own money may be spent.", metavar="AMOUNT")
    ] = None,
    balance_max: Annotated[
        str | None, typer.Option(help="The most that the wallet may have; `none` is no limit.", metavar="AMOUNT")
    ] = None,
    velocity: Annotated[
        str | None, typer.Option(help="The velocity limits, as a JSON list; it replaces all.", metavar="JSON")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file with that list.", exists=True, dir_okay=False, metavar="PATH")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why: for the event and for the audit table.")] = None,
    reference: Reference = None,
    as_json: JsonOption = False,
) -> None:
    """Show a wallet's limits and what is used of them, or set those that are given. Exit 1 if it is refused."""
    found = with_wallet_database(lambda engine: operator_acts.find_limits(engine, wallet_id))
    if found is None:
        fail(f"wallet {wallet_id} doesn't exist", Exit.FOUND_WRONG)
    asked = limit_arguments.asked(overdraft_limit, balance_max, velocity, file)
    if not asked:
        limit_arguments.show(found, as_json=as_json)
        return
    if reason is None:
        fail("--reason: is needed to set limits", Exit.USAGE)
    # What another operator has changed meanwhile is not overwritten.
    if_match = frozenset({found["version"]})
    fields = {**limit_arguments.present(found), **asked, "reference": reference}
    see = f"walletctl wallet limits {wallet_id}"
    act(SetLimits, wallet_id, fields, reason, see=see, as_json=as_json, if_match=if_match)


app.command(epilog="Example:  walletctl wallet statement 0198c2a5-… --from 2026-11-01 --to 2026-12-01 --format csv")(
    statement
)


def _find(wallet_id: UUID) -> dict[str, Any]:
    row = with_wallet_database(lambda engine: operator_acts.find_wallet(engine, wallet_id))
    if row is None:
        fail(f"wallet {wallet_id} doesn't exist", Exit.FOUND_WRONG)
    return wallet_json(row)


def _act(operation: type[Operation], wallet_id: UUID, reason: str, as_json: bool, **fields: str | None) -> None:
    act(operation, wallet_id, fields, reason, see=f"walletctl wallet show {wallet_id}", as_json=as_json)
