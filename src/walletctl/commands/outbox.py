"""`walletctl outbox`."""

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Final, TypeVar
from uuid import UUID

import orjson
import typer
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.operations import inspection, parking
from outbox_relay.operations import replay as replaying
from outbox_relay.operations.inspection import State
from outbox_relay.operations.parking import RowStateError
from outbox_relay.operations.replay import Selection
from walletctl.commands.outbox_prune import prune
from walletctl.console import (
    Exit,
    JsonOption,
    err,
    fail,
    out,
    print_fields,
    print_json,
    print_table,
    progress_bar,
)
from walletctl.databases import with_wallet_database
from walletctl.times import TIME_HELP, parse_time

app = typer.Typer(help="The outbox: inspect, replay, park, retry, skip and prune its rows.", no_args_is_help=True)
app.command(epilog="Example:  walletctl outbox prune --older-than-days 30 --dry-run")(prune)

ResultT = TypeVar("ResultT")

_UNASKED_ROWS_MAX: Final = 1000
_ID_MAX: Final = 2**63 - 1

FromId = Annotated[int | None, typer.Option(help="Rows from this outbox id on.", min=1, max=_ID_MAX)]
ToId = Annotated[int | None, typer.Option(help="Rows up to this outbox id.", min=1, max=_ID_MAX)]
Wallet = Annotated[UUID | None, typer.Option(help="Rows of this wallet, the one that acted.")]
EventType = Annotated[str | None, typer.Option("--type", help="Rows of this event type, such as TRANSFER_DONE.")]
Since = Annotated[
    datetime | None,
    typer.Option("--from", help=f"Rows written at this time or later: {TIME_HELP}.", parser=parse_time, metavar="TIME"),
]
Until = Annotated[
    datetime | None,
    typer.Option("--to", help="Rows written before this time; written as --from.", parser=parse_time, metavar="TIME"),
]


def _selection(
    from_id: int | None,
    to_id: int | None,
    wallet: UUID | None,
    event_type: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Selection:
    return Selection(from_id, to_id, wallet, event_type, since, until)


@app.command(epilog="Example:  walletctl outbox status --json")
def status(as_json: JsonOption = False) -> None:
    """Count pending and parked rows; exit 1 if a row is parked, or ids are out of order."""
    found = dict(with_wallet_database(inspection.status))
    if as_json:
        print_json(found)
    else:
        print_fields("Outbox", found)
    if found["stranded"] or found["sequence_behind"]:
        err.print(
            "New outbox ids are below old ones. A relay with the privilege corrects it within a minute; else run "
            "walletctl db migrate",
            soft_wrap=True,
        )
    if found["parked"]:
        err.print("Parked events wait for an operator: walletctl outbox list --state parked, then outbox retry or skip")
    if found["parked"] or found["stranded"] or found["sequence_behind"]:
        raise typer.Exit(Exit.FOUND_WRONG)


@app.command("list", epilog="Example:  walletctl outbox list --state pending --limit 20")
def list_rows(
    state: Annotated[State, typer.Option(help="Rows in this state.")] = "all",
    from_id: FromId = None,
    to_id: ToId = None,
    wallet: Wallet = None,
    event_type: EventType = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="The most rows to list.", min=1, max=10_000)] = 20,
    as_json: JsonOption = False,
) -> None:
    """List outbox rows without their payload, newest first."""
    selection = _selection(from_id, to_id, wallet, event_type, since, until)
    rows = with_wallet_database(lambda engine: inspection.list_rows(engine, state, selection, limit))
    if as_json:
        print_json({"items": [dict(row) for row in rows]})
        return
    columns = ("id", "event_type", "wallet_id", "created_at", "published_at", "partition@offset", "last_error")
    print_table(f"Outbox ({state})", columns, [_cells(row) for row in rows])


def _cells(row: RowMapping) -> tuple[object, ...]:
    where = None if row["published_at"] is None else f"{row['kafka_partition']}@{row['kafka_offset']}"
    return (
        row["id"],
        row["event_type"],
        row["wallet_id"],
        f"{row['created_at']:%F %T}",
        row["published_at"] and f"{row['published_at']:%F %T}",
        where,
        row["last_error"],
    )


@app.command(epilog="Example:  walletctl outbox show 4711")
def show(
    name: Annotated[str, typer.Argument(help="An outbox id or an event id.", metavar="ID")], as_json: JsonOption = False
) -> None:
    """Show one outbox row with its payload; exit 1 if it doesn't exist."""
    try:
        row = with_wallet_database(lambda engine: inspection.show_row(engine, name))
    except ValueError:
        fail(f"{name} is neither an outbox id (a number) nor an event id (a UUID)", Exit.USAGE)
    if row is None:
        fail(f"outbox row {name} doesn't exist", Exit.FOUND_WRONG)
    if as_json:
        print_json(dict(row))
    else:
        payload = orjson.dumps(row["payload"], option=orjson.OPT_INDENT_2).decode()
        print_fields(f"Outbox row {row['id']}", {**row, "payload": payload})


@app.command(
    epilog="Examples:  walletctl outbox replay --wallet 0198…   ·   walletctl outbox replay --all --rate 500 --yes"
)
def replay(
    from_id: FromId = None,
    to_id: ToId = None,
    wallet: Wallet = None,
    event_type: EventType = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="All published rows.")] = False,
    rate: Annotated[float | None, typer.Option(help="The most rows a second.", min=0.1, max=1_000_000)] = None,
    reason: Annotated[str | None, typer.Option(help="The reason, for the audit table.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Replay even more than 1,000 rows.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish events again, in their order. Safe at any time: consumers drop duplicates.

    Give at least one filter, or --all. If more than 1,000 rows match, it only counts them, as with --dry-run, unless
    you add --yes. After Ctrl-C, continue with the --from-id that is printed.
    """
    selection = _selection(from_id, to_id, wallet, event_type, since, until)
    if selection.is_empty() and not everything:
        fail("name the events: --from-id, --to-id, --wallet, --type, --from, --to, or --all", Exit.USAGE)
    count, lowest, highest = with_wallet_database(lambda engine: replaying.count_replayable(engine, selection))
    if dry_run or (count > _UNASKED_ROWS_MAX and not yes):
        _report(as_json, matched=count, replayed=0, first_id=lowest, last_id=highest)
        if not dry_run:
            fail(f"{count:,} rows match, and none was replayed. Add --yes to replay them", Exit.FOUND_WRONG)
        return
    progress = {"replayed": 0, "next_id": lowest}

    async def work(engine: AsyncEngine) -> None:
        with progress_bar("replaying", count) as advance:
            async for ids in replaying.replay(engine, selection, rate_per_second=rate, reason=reason):
                progress["replayed"] += len(ids)
                progress["next_id"] = ids[-1] + 1
                advance(len(ids))

    try:
        with_wallet_database(work)
    except KeyboardInterrupt:
        fail(
            f"stopped after {progress['replayed']:,} of {count:,}. Continue with --from-id {progress['next_id']}",
            Exit.FOUND_WRONG,
        )
    _report(as_json, matched=count, replayed=progress["replayed"], first_id=lowest, last_id=highest)


def _report(as_json: bool, **fields: int) -> None:
    if as_json:
        print_json(fields)
        return
    matched = f"{fields['matched']:,} published rows match (ids {fields['first_id']} to {fields['last_id']})"
    replayed = f"{fields['replayed']:,} are pending again: the relays publish them now."
    out.print(f"{matched}; {replayed if fields['replayed'] else 'none was replayed.'}", highlight=False, soft_wrap=True)


RowId = Annotated[int, typer.Argument(help="An outbox id.", metavar="ID", min=1, max=_ID_MAX)]
Why = Annotated[str, typer.Option(help="The reason, for the audit table.")]


@app.command(epilog="Example:  walletctl outbox park 4711 --reason 'consumers cannot read it'")
def park(row_id: RowId, reason: Why, as_json: JsonOption = False) -> None:
    """Park a pending event, and with it the wallet's later events. Exit 1 if the event isn't pending."""
    _change(lambda engine: parking.park(engine, row_id, reason))
    _print_done(as_json, f"Outbox row {row_id} is parked. The relays park the wallet's later rows.", parked=row_id)


@app.command(epilog="Example:  walletctl outbox skip 4711 --reason 'test data, see ticket 12'")
def skip(row_id: RowId, reason: Why, as_json: JsonOption = False) -> None:
    """Skip a parked event: it is never published. Exit 1 if the event isn't parked.

    The history of each wallet that the event touched keeps a gap for ever. The wallet's later events stay parked until
    you run outbox retry.
    """
    wallet = _change(lambda engine: parking.wallet_of(engine, row_id))
    _change(lambda engine: parking.skip(engine, row_id, reason))
    _print_done(
        as_json,
        f"Outbox row {row_id} is skipped. Publish the wallet's later rows: walletctl outbox retry --wallet {wallet}",
        skipped=row_id,
        wallet_id=wallet,
    )


@app.command(
    epilog="Examples:  walletctl outbox retry 4711   ·   walletctl outbox retry --wallet 0198…   ·   "
    "walletctl outbox retry --all --yes"
)
def retry(
    row_id: Annotated[
        int | None,
        typer.Argument(
            help="The outbox id of a row, for all parked rows of its wallet.", metavar="[ID]", min=1, max=_ID_MAX
        ),
    ] = None,
    wallet: Annotated[UUID | None, typer.Option(help="All parked rows of this wallet.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All parked rows of every wallet.")] = False,
    reason: Annotated[str | None, typer.Option(help="The reason, for the audit table.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation of --all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish all parked events of a wallet, in their order. Exit 1 if no event is parked.

    Remove the cause first. An event that still can't be published is parked again, with the wallet's later events.
    """
    if [row_id is not None, wallet is not None, everything].count(True) != 1:
        fail("name the rows: an outbox id, --wallet, or --all", Exit.USAGE)
    if row_id is not None:
        wallet = _change(lambda engine: parking.wallet_of(engine, row_id))
    rows, wallets = with_wallet_database(lambda engine: parking.count_parked(engine, wallet))
    if not rows:
        fail("no row is parked", Exit.FOUND_WRONG)
    if everything and not yes and not _confirmed(f"Retry {rows:,} parked events of {wallets:,} wallets?"):
        fail(f"{rows:,} events of {wallets:,} wallets are parked, and none was retried. Add --yes", Exit.FOUND_WRONG)
    retried = 0

    async def work(engine: AsyncEngine) -> None:
        nonlocal retried
        with progress_bar("retrying", rows) as advance:
            async for ids in parking.retry(engine, wallet, reason):
                retried += len(ids)
                advance(len(ids))

    with_wallet_database(work)
    message = f"{retried:,} parked events of {wallets:,} wallets are pending again: the relays publish them now."
    _print_done(as_json, message, released=retried, wallets=wallets)


def _confirmed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def _change(work: Callable[[AsyncEngine], Awaitable[ResultT]]) -> ResultT:
    try:
        return with_wallet_database(work)
    except RowStateError as error:
        fail(str(error), Exit.FOUND_WRONG)


def _print_done(as_json: bool, message: str, **fields: object) -> None:
    if as_json:
        print_json(fields)
    else:
        out.print(message, highlight=False, soft_wrap=True)
