"""`walletctl wallet history`."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import typer

from common.http.pagination import Order, PageBounds
from common.problems import ValidationProblem
from history_consumer.operations.wallet_history import wallet_history
from history_consumer.projection import EVENT_TYPES
from history_consumer.read_api.page_queries import Filters
from walletctl.console import Exit, JsonOption, fail, out, print_json, print_table
from walletctl.databases import with_history_database
from walletctl.times import TIME_HELP, parse_time

_COLUMNS: Final = (
    *("wallet_version", "created_at", "event_type", "direction", "amount", "balance_after"),
    *("counterparty_wallet_id", "transaction_id"),
)


def _event_type(text: str) -> str:
    if text not in EVENT_TYPES:
        raise typer.BadParameter(f"must be one of {', '.join(EVENT_TYPES)}")
    return text


def history(
    wallet_id: Annotated[UUID, typer.Argument(help="The id of a wallet.", metavar="ID")],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only these event types; may be repeated.", parser=_event_type, metavar="TYPE"),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--from", help=f"Created then or later: {TIME_HELP}.", parser=parse_time, metavar="TIME"),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--to", help="Created before; written as --from.", parser=parse_time, metavar="TIME"),
    ] = None,
    order: Annotated[Order, typer.Option(help="desc: newest first.")] = "desc",
    limit: Annotated[int, typer.Option(help="At most this many events on a page.", min=1, max=1000)] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="The next page: next_cursor of the page before, with the same filters and order.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the events of a wallet as the history has them; exit 1 if it has none of the wallet, or none yet.

    HISTORY_DATABASE_URL or DATABASE_URL names the history's database. Events arrive there after the wallet changed.
    """
    filters, page = Filters(types or None, since, until), PageBounds(limit, cursor, order)
    try:
        found = with_history_database(lambda engine: wallet_history(engine, wallet_id, filters, page))
    except ValidationProblem as problem:
        fail(f"--{problem.detail}", Exit.USAGE)
    if not found["event_count"]:
        fail(f"the history has no event of wallet {wallet_id}, or none yet", Exit.FOUND_WRONG)
    if as_json:
        print_json(found)
        return
    print_table("History", _COLUMNS, ([item[column] for column in _COLUMNS] for item in found["items"]))
    if not found["complete"]:
        out.print(f"A version is missing after version {found['as_of_version']}: see walletctl history status")
    if found["next_cursor"]:
        out.print(f"Next page: --cursor {found['next_cursor']}", soft_wrap=True, highlight=False)
