"""`walletctl wallet hold`."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.parts import HoldStatus
from wallet_api import operator_acts
from wallet_api.holds.replies import hold_out_json
from wallet_api.operations.capture_hold import CaptureHold
from wallet_api.operations.holds import HoldOperation
from wallet_api.operations.void_hold import VoidHold
from walletctl.console import Exit, JsonOption, fail, print_fields, print_json, print_table
from walletctl.databases import with_wallet_database
from walletctl.wallet_acts import Reason, Reference, act

app = typer.Typer(help="Holds: list, show, capture and void them.", no_args_is_help=True)

_COLUMNS: Final = (
    *("id", "created_at", "status", "amount", "captured", "remaining", "to_wallet_id", "expires_at", "reference"),
)

HoldId = Annotated[UUID, typer.Argument(help="The id of a hold.", metavar="HOLD")]


@app.command("list", epilog="Example:  walletctl wallet hold list 0198c2a5-… --status open")
def list_holds(
    wallet_id: Annotated[UUID, typer.Argument(help="The id of a wallet.", metavar="ID")],
    status: Annotated[HoldStatus | None, typer.Option(help="Only the holds with this status.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many holds, the newest.", min=1, max=1000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest holds on a wallet, newest first; exit 1 if the wallet doesn't exist.

    A hold that has expired is listed as such at once.
    """

    async def work(engine: AsyncEngine) -> Sequence[RowMapping] | None:
        rows = await operator_acts.list_holds(engine, wallet_id, status, limit)
        return rows if rows or await operator_acts.find_wallet(engine, wallet_id) else None

    rows = with_wallet_database(work)
    if rows is None:
        fail(f"wallet {wallet_id} doesn't exist", Exit.FOUND_WRONG)
    holds = [hold_out_json(row) for row in rows]
    if as_json:
        print_json({"items": holds})
    else:
        print_table("Holds", _COLUMNS, ([hold[column] for column in _COLUMNS] for hold in holds))


@app.command(epilog="Example:  walletctl wallet hold show 0198c2a7-…")
def show(hold_id: HoldId, as_json: JsonOption = False) -> None:
    """Show a hold, with the transactions that changed it; exit 1 if it doesn't exist."""
    row = with_wallet_database(lambda engine: operator_acts.find_hold(engine, hold_id))
    if row is None:
        fail(f"hold {hold_id} doesn't exist", Exit.FOUND_WRONG)
    hold = hold_out_json(row)
    if as_json:
        print_json(hold)
    else:
        print_fields("Hold", {**hold, "transaction_ids": "\n".join(hold["transaction_ids"])})


@app.command(epilog="Example:  walletctl wallet hold void 0198c2a7-… --reason 'order cancelled'")
def void(hold_id: HoldId, reason: Reason, reference: Reference = None, as_json: JsonOption = False) -> None:
    """Release what a hold still reserves. Exit 1 if it is refused."""
    _act(VoidHold, hold_id, {"reference": reference}, reason, as_json=as_json)


@app.command(
    epilog="Example:  walletctl wallet hold capture 0198c2a7-… --amount 20.00 --no-final --reason 'first parcel sent'"
)
def capture(
    hold_id: HoldId,
    reason: Annotated[str, typer.Option(help="Why: for the audit table only.")],
    amount: Annotated[
        str | None, typer.Option(help="How much, in major units; default: all that the hold still reserves.")
    ] = None,
    final: Annotated[
        bool, typer.Option("--final/--no-final", help="Whether the rest is released, or stays reserved.")
    ] = True,
    reference: Reference = None,
    as_json: JsonOption = False,
) -> None:
    """Move money that a hold reserves to the hold's receiver. Exit 1 if it is refused."""
    fields = {"amount": amount, "final": final, "reference": reference}
    _act(CaptureHold, hold_id, fields, reason, as_json=as_json)


def _act(operation: type[HoldOperation], hold_id: UUID, fields: dict[str, Any], reason: str, *, as_json: bool) -> None:
    act(operation, hold_id, fields, reason, see=f"walletctl wallet hold show {hold_id}", as_json=as_json)
