"""`walletctl restore`."""

import sys
from typing import Annotated, Any

import orjson
import typer

from walletctl.console import (
    Exit,
    JsonOption,
    fail,
    load_settings,
    out,
    print_fields,
    print_json,
    print_table,
)
from walletctl.databases import run

app = typer.Typer(
    help="What to run after the wallet database was restored to an earlier time: docs/restore.md.",
    no_args_is_help=True,
)


@app.command(epilog="Example:  walletctl restore begin --reason 'disk failed, back to 14:05' --yes")
def begin(
    reason: Annotated[str | None, typer.Option(help="Why; stored with the epoch.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a new source epoch on the restored database, before the API and the relays start again.

    The database will assign wallet versions and outbox ids again that it assigned after the restored time. The epoch
    tells the new events from the lost ones. The history is halted until `walletctl history rebuild` has run.
    The command may be repeated, and may run late: it keeps what requests have written since the restore.

    Settings come from the environment: DATABASE_URL, HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC,
    OPERATOR.
    """
    from walletctl.restore import restore
    from walletctl.settings import RestoreBeginSettings

    settings = load_settings(RestoreBeginSettings)
    question = "Was this database restored to an earlier time? The history is halted until it is rebuilt"
    if not yes and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        fail("nothing was done. If the database was restored to an earlier time, add --yes", Exit.FOUND_WRONG)
    start = run(restore.begin(settings, reason))
    ends = {str(partition): end for partition, end in sorted(start.topic_ends.items())}
    if as_json:
        print_json({"source_epoch": start.epoch, "pending": start.pending, "topic_ends": ends})
        return
    shown = ", ".join(f"{partition}@{end}" for partition, end in ends.items())
    print_fields(f"Source epoch {start.epoch}", {"still to publish": start.pending, "topic ends": shown or None})
    out.print("List the lost events: walletctl restore lost", highlight=False)
    out.print("Then, beside live traffic: walletctl history rebuild, walletctl verify", highlight=False)


@app.command(epilog="Example:  walletctl restore lost --limit 1000000 --json | jq .items")
def lost(
    limit: Annotated[int, typer.Option(min=1, help="How many events to list. All are counted.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the events that the topic has and the wallet database does not; exit 1 if there are any.

    They happened after the time to which the database was restored. The command reads the whole topic and changes
    nothing. Events that no relay had published are lost without a trace.

    Settings come from the environment: DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC.
    """
    from walletctl.restore import restore
    from walletctl.settings import RestoreLostSettings

    settings = load_settings(RestoreLostSettings)
    report = run(restore.find_lost(settings, limit))
    items: list[dict[str, Any]] = [
        {
            "partition": event.partition,
            "offset": event.offset,
            "source_epoch": event.source_epoch,
            "event": orjson.loads(event.data),
        }
        for event in report.events
    ]
    if as_json:
        print_json({"count": report.count, "items": items})
    else:
        columns = ("record", "epoch", "created at", "type", "amount", "wallets", "users")
        print_table(f"Lost events: {report.count:,}", columns, map(_cells, items))
    if report.count:
        raise typer.Exit(Exit.FOUND_WRONG)


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    event = item["event"]
    amount = f"{event['amount']} {event['currency']}" if "amount" in event else None
    wallets, users = zip(*((change["wallet_id"], change["user_id"]) for change in event["wallets"]), strict=True)
    record, what = f"{item['partition']}@{item['offset']}", (event["created_at"], event["event_type"], amount)
    return record, item["source_epoch"], *what, " → ".join(wallets), " → ".join(users)
