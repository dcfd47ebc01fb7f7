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
    help="After the wallet database was restored to an earlier time: docs/restore.md.", no_args_is_help=True
)


@app.command(epilog="Example:  walletctl restore begin --reason 'disk failed, back to 14:05' --yes")
def begin(
    reason: Annotated[str | None, typer.Option(help="Why; is kept with the epoch.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Begin a new source epoch on the restored database, before the API and the relay start again.

    Versions and outbox ids that were given after the restored time will be given again: the epoch tells the new
    events from the lost ones. The history stands still until `walletctl history rebuild` has brought it in line.
    Safe to repeat, and late too: what was written meanwhile is kept.

    Settings come from the environment: DATABASE_URL, HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC,
    OPERATOR.
    """
    from walletctl.restore import restore
    from walletctl.settings import RestoreSettings

    settings = load_settings(RestoreSettings)
    question = "Was this database restored to an earlier time? The history stands still until it is rebuilt"
    if not yes and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        fail("nothing was done. If the database was restored to an earlier time, add --yes", Exit.FOUND_WRONG)
    begun = run(restore.begin(settings, reason))
    ends = {str(partition): end for partition, end in sorted(begun.topic_ends.items())}
    if as_json:
        print_json({"source_epoch": begun.epoch, "pending": begun.pending, "topic_ends": ends})
        return
    shown = ", ".join(f"{partition}@{end}" for partition, end in ends.items())
    print_fields(f"Source epoch {begun.epoch}", {"still to publish": begun.pending, "topic before it": shown or None})
    out.print("See what is lost: walletctl restore lost", highlight=False)
    out.print("Then, beside traffic: walletctl history rebuild, walletctl verify", highlight=False)


@app.command(epilog="Example:  walletctl restore lost --limit 1000000 --json | jq .items")
def lost(
    limit: Annotated[int, typer.Option(min=1, help="How many to list; all are counted.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the events that the topic has and the wallet database hasn't; exit 1 if there are any.

    They happened after the time to which the database was restored. Reads the whole topic and changes nothing; what
    was not published yet by then is nowhere any more.

    Settings come from the environment: DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC.
    """
    from walletctl.restore import restore
    from walletctl.settings import LostSettings

    settings = load_settings(LostSettings)
    found = run(restore.find_lost(settings, limit))
    items: list[dict[str, Any]] = [
        {
            "partition": event.partition,
            "offset": event.offset,
            "source_epoch": event.source_epoch,
            "event": orjson.loads(event.data),
        }
        for event in found.events
    ]
    if as_json:
        print_json({"count": found.count, "items": items})
    else:
        columns = ("record", "epoch", "created at", "type", "amount", "wallets", "users")
        print_table(f"Lost events: {found.count:,}", columns, map(_cells, items))
    if found.count:
        raise typer.Exit(Exit.FOUND_WRONG)


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    event = item["event"]
    amount = f"{event['amount']} {event['currency']}" if "amount" in event else None
    wallets, users = zip(*((change["wallet_id"], change["user_id"]) for change in event["wallets"]), strict=True)
    where = f"{item['partition']}@{item['offset']}"
    told = (event["created_at"], event["event_type"], amount)
    return where, item["source_epoch"], *told, " → ".join(wallets), " → ".join(users)
