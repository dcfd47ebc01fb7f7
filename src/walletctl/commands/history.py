"""`walletctl history`."""

from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer.operations.dead_letter_prune import count_prunable
from history_consumer.operations.dead_letter_prune import prune_dead_letters as pruned_dead_letters
from history_consumer.operations.dead_letter_retry import RetryResult, retry_dead_letters
from history_consumer.operations.dead_letters import list_dead_letters as listed_dead_letters
from history_consumer.operations.dead_letters import show_dead_letter as found_dead_letter
from history_consumer.operations.status import Broker, HistoryStatus, history_status
from history_consumer.rebuild.result import Source
from history_consumer.settings import DeadLetterRetentionSettings
from walletctl.api_server import serve
from walletctl.console import (
    Exit,
    JsonOption,
    fail,
    load_settings,
    out,
    print_error,
    print_fields,
    print_json,
    print_table,
    progress_bar,
)
from walletctl.databases import run, with_history_database
from walletctl.settings import StatusSettings

app = typer.Typer(help="The history: serve it, see how far it is.", no_args_is_help=True)
dead_letters = typer.Typer(help="Records that could not be applied.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")


@app.command("serve", epilog="Example:  DATABASE_URL=postgresql://… walletctl history serve")
def serve_history() -> None:
    """Serve the history over HTTP until SIGTERM.

    Settings come from the environment: DATABASE_URL or HISTORY_DATABASE_URL, HISTORY_API_HOST, HISTORY_API_PORT, …
    """
    from history_consumer.settings import HistoryApiSettings

    settings = load_settings(HistoryApiSettings)
    serve(
        "history_consumer.read_api.app:create_app",
        settings.history_api_host,
        settings.history_api_port,
        settings,
        workers=settings.history_api_workers,
        descriptors_kept=settings.database_pool_size,
    )


@app.command(epilog="Example:  walletctl history rebuild --yes")
def rebuild(
    source: Annotated[Source, typer.Option("--from", help="What the new history is made of.")] = "auto",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the history anew beside the live one and swap them; exit 1 if something is missing in it.

    The read API goes on serving the old one, consumers and relays go on working, and halted partitions go on by
    themselves afterwards. From the topic, if that has everything (auto), else from the outbox and then the topic;
    what the outbox no longer has comes from the ledger. A rebuild that dies changes nothing. It needs as much
    room on the history's disk as the history has.

    Settings come from the environment: DATABASE_URL, HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC,
    CONSUMER_GROUP.
    """
    from common.settings import PipelineSettings
    from history_consumer.rebuild.errors import CannotRebuildError
    from history_consumer.rebuild.rebuild import rebuild

    settings = load_settings(PipelineSettings)
    if not yes and not typer.confirm("Put a new history in the place of the present one?", err=True):
        raise typer.Exit(Exit.FOUND_WRONG)
    try:
        done = run(rebuild(settings, source, progress=progress_bar))
    except CannotRebuildError as error:
        fail(f"{error}. The history is as it was", Exit.FOUND_WRONG)
    by_partition = {str(partition): offset for partition, offset in sorted(done.positions.items())}
    left = done.retried.left.total()
    found = {**asdict(done), "positions": by_partition, "retried": done.retried.count, "dead_letters": left}
    if as_json:
        print_json(found)
    else:
        positions = ", ".join(f"{partition}@{offset}" for partition, offset in by_partition.items())
        print_fields("Rebuilt", {**found, "why": done.why or None, "positions": positions or None})
        out.print("Prove it: walletctl verify")
    if done.missing or left:
        raise typer.Exit(Exit.FOUND_WRONG)


@app.command(epilog="Example:  walletctl history status --json")
def status(as_json: JsonOption = False) -> None:
    """Show positions, lag, gaps and dead letters; exit 1 if there is a gap or a dead letter, or it is to be rebuilt.

    With KAFKA_BOOTSTRAP_SERVERS in the environment the lag is shown too, and the topic's settings are checked: exit 1
    if with them events may be lost, or expire before KAFKA_TOPIC_RETENTION_MS. A gap may close by itself, while events
    are on their way.
    """
    settings = load_settings(StatusSettings)
    servers = settings.kafka_bootstrap_servers
    broker = Broker(servers, settings.kafka_topic_retention_ms) if servers else None

    async def work(engine: AsyncEngine) -> HistoryStatus:
        return await history_status(engine, broker)

    found = with_history_database(work)
    if as_json:
        print_json({**asdict(found), "lag": found.lag, "is_stopped": found.is_stopped})
    else:
        _print_status(found)
    if found.gaps or found.dead_letters or found.is_stopped or found.topics_wrong:
        raise typer.Exit(Exit.FOUND_WRONG)


def _print_status(found: HistoryStatus) -> None:
    partitions = [
        (row["consumer_group"], f"{row['topic']}/{row['partition']}", row["next_offset"], row["lag"])
        for row in found.partitions
    ]
    print_table("Positions", ("group", "partition", "next offset", "lag"), partitions)
    fields = {"wallets": found.wallets, "rows": found.events, "gaps": found.gaps, "dead letters": found.dead_letters}
    print_fields("History", {**fields, "lag": found.lag, "kafka": found.kafka})
    if found.gaps:
        columns = ("wallet", "events", "highest version", "since", "")
        gaps = [
            (g["wallet_id"], g["event_count"], g["max_version"], g["open_since"], "ALARM" if g["is_old"] else "")
            for g in found.oldest_gaps
        ]
        print_table("Gaps: versions that have not come yet", columns, gaps)
    if found.dead_letters:
        out.print("Look at them: walletctl history dead-letters list")
    if found.old_gaps and found.lag:
        out.print(f"{found.lag:,} records are still to be read: some of what is missing may be among them")
    if found.old_gaps:
        out.print(
            f"[red]alarm:[/red] {found.old_gaps:,} wallets miss a version for more than 30 s: look for dead letters "
            "and parked events, then walletctl verify; if the topic lost records, walletctl history rebuild, then "
            "walletctl outbox replay",
            highlight=False,
        )
    if found.conflicts:
        out.print(
            f"[red]alarm:[/red] {found.conflicts:,} events claim a version that another event has: "
            "walletctl history dead-letters list --reason version-conflict, then walletctl verify. If the wallet "
            "database was restored: walletctl restore begin",
            highlight=False,
        )
    for line in found.topics_unchecked:
        out.print(escape(line), highlight=False, soft_wrap=True)
    for line in found.topics_wrong:
        out.print(f"[red]alarm:[/red] {escape(line)}", highlight=False, soft_wrap=True)
    if found.is_stopped:
        out.print(
            "[red]alarm:[/red] the wallet database was restored, and the history takes nothing more until it is "
            "rebuilt: walletctl history rebuild",
            highlight=False,
        )


@dead_letters.command("list", epilog="Example:  walletctl history dead-letters list --reason wrong-shape")
def list_dead_letters(
    reason: Annotated[str | None, typer.Option(help="Only those put aside for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, newest first, without key and value."""
    rows = with_history_database(lambda engine: listed_dead_letters(engine, reason=reason, limit=limit))
    if as_json:
        print_json({"items": rows})
        return
    cells = [
        (
            row["id"],
            row["reason"],
            f"{row['topic']}/{row['partition']}@{row['offset']}",
            row["created_at"],
            row["detail"],
        )
        for row in rows
    ]
    print_table("Dead letters", ("id", "reason", "record", "since", "detail"), cells)


@dead_letters.command("show", epilog="Example:  walletctl history dead-letters show 1")
def show_dead_letter(
    dead_letter_id: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1)], as_json: JsonOption = False
) -> None:
    """Show one dead letter, whole; exit 1 if there is none."""
    row = with_history_database(lambda engine: found_dead_letter(engine, dead_letter_id))
    if row is None:
        fail(f"there is no dead letter {dead_letter_id}", Exit.FOUND_WRONG)
    if as_json:
        print_json(row)
    else:
        headers = orjson.dumps(row["headers"]).decode()
        print_fields(f"Dead letter {dead_letter_id}", {**row, "headers": headers})


@dead_letters.command(
    "retry",
    epilog="Examples:  walletctl history dead-letters retry 1   ·   walletctl history dead-letters retry --all",
)
def retry(
    dead_letter_id: Annotated[int | None, typer.Argument(metavar="ID", min=1, max=2**63 - 1)] = None,
    reason: Annotated[str | None, typer.Option(help="Those put aside for this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Apply dead letters whose cause is gone, exactly as the consumer does; exit 1 if some are left.

    What can be applied by now, or is in the history already, leaves the dead letters; the others stay, with
    the reason as it is now. Always safe: nothing is applied twice, and no position moves.
    """
    if [dead_letter_id is not None, reason is not None, everything].count(True) != 1:
        fail("say which dead letters: an ID, --reason, or --all", Exit.USAGE)
    total = RetryResult()

    async def work(engine: AsyncEngine) -> None:
        with progress_bar("retrying", None) as advance:
            async for done in retry_dead_letters(engine, dead_letter_id=dead_letter_id, reason=reason):
                total.add(done)
                advance(done.count)

    with_history_database(work)
    if dead_letter_id is not None and not total.count:
        fail(f"there is no dead letter {dead_letter_id}", Exit.FOUND_WRONG)
    left = total.left.total()
    if as_json:
        print_json({**asdict(total), "left": left, "reasons": dict(total.left)})
    else:
        fields = {"tried": total.count, "applied": total.applied, "were there": total.duplicates, "left": left}
        print_fields("Dead letters", {**fields, **{f"left: {code}": count for code, count in total.left.items()}})
    if total.conflicts:
        print_error(
            f"{total.conflicts:,} claim a version that another event has; no retry heals that: "
            "walletctl history dead-letters list --reason version-conflict, then walletctl verify"
        )
    if left:
        raise typer.Exit(Exit.FOUND_WRONG)


@dead_letters.command(
    "prune", epilog="Example:  walletctl history dead-letters prune --older-than-days 90 --reason not-json --dry-run"
)
def prune_dead_letters(
    older_than_days: Annotated[
        float | None, typer.Option(help="How old; else DEAD_LETTER_RETENTION_DAYS.", min=0, max=36_500)
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only those put aside for this reason.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would leave.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old dead letters now; the consumers do the same in time if DEAD_LETTER_RETENTION_DAYS is set.

    Version conflicts never leave this way: they go when the history is rebuilt. What has left can't be retried any
    more; the gap that it may stand for stays an alarm, and verify goes on finding it.
    """
    days = older_than_days
    if days is None:
        days = load_settings(DeadLetterRetentionSettings).dead_letter_retention_days
    if days is None:
        fail("say how old: --older-than-days, or DEAD_LETTER_RETENTION_DAYS in the environment", Exit.USAGE)
    total, conflicts = with_history_database(lambda engine: count_prunable(engine, days, reason))
    gone = 0

    async def work(engine: AsyncEngine) -> None:
        nonlocal gone
        with progress_bar("pruning", total) as advance:
            async for count in pruned_dead_letters(engine, days, reason):
                gone += count
                advance(count)

    if not dry_run:
        with_history_database(work)
    count = total if dry_run else gone
    if as_json:
        print_json({"dead_letters": count, "conflicts_kept": conflicts, "dry_run": dry_run})
    else:
        verb = "would leave" if dry_run else "left"
        out.print(f"{count:,} dead letters {verb}; {conflicts:,} version conflicts of that age stay.", highlight=False)
