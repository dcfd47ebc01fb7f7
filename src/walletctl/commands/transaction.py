"""`walletctl transaction`."""

from typing import Annotated, Final
from uuid import UUID

import typer

from wallet_api import operator_acts
from wallet_api.operations.reverse import Reverse
from walletctl.console import Exit, JsonOption, fail, print_fields, print_json, print_table
from walletctl.databases import with_wallet_database
from walletctl.wallet_acts import Reason, Reference, act

app = typer.Typer(help="Ledger transactions: show and reverse them.", no_args_is_help=True)

_COLUMNS: Final = ("wallet_id", "amount", "balance_after", "held", "held_after", "version")

TransactionId = Annotated[UUID, typer.Argument(help="The id of a ledger transaction.", metavar="ID")]


@app.command(epilog="Example:  walletctl transaction show 0198c2a5-…")
def show(transaction_id: TransactionId, as_json: JsonOption = False) -> None:
    """Show a transaction, its legs and its reversals; exit 1 if it doesn't exist."""
    found = with_wallet_database(lambda engine: operator_acts.find_transaction(engine, transaction_id))
    if found is None:
        fail(f"transaction {transaction_id} doesn't exist", Exit.FOUND_WRONG)
    if as_json:
        print_json(found)
        return
    legs = found.pop("legs")
    print_fields("Transaction", found)
    print_table("Legs", _COLUMNS, ([leg[column] for column in _COLUMNS] for leg in legs))


@app.command(epilog="Example:  walletctl transaction reverse 0198c2a5-… --amount 12.50 --reason 'goods returned'")
def reverse(
    transaction_id: TransactionId,
    reason: Reason,
    amount: Annotated[
        str | None, typer.Option(help="Major units, such as 12.50. By default all that is left.", metavar="AMOUNT")
    ] = None,
    leg: Annotated[
        list[str] | None,
        typer.Option(
            help="What one receiver of a split gives back, in place of --amount; may be repeated.", metavar="ID=AMOUNT"
        ),
    ] = None,
    reference: Reference = None,
    as_json: JsonOption = False,
) -> None:
    """Move the money of a transaction back, all that is left of it or a part. Exit 1 if it is refused."""
    legs = [dict(zip(("to_wallet_id", "amount"), told.split("=", 1), strict=False)) for told in leg or ()]
    fields = {"amount": amount, "legs": legs or None, "reference": reference}
    act(Reverse, transaction_id, fields, reason, see=f"walletctl transaction show {transaction_id}", as_json=as_json)
