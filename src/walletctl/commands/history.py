"""`walletctl history`."""

from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from sqlalchemy.ext.asyncio import AsyncEngine

from common.http.server import serve
from history_consumer.operations.dead_letter_prune import count_prunable
from history_consumer.operations.dead_letter_prune import prune_dead_letters as pruned_dead_letters
from history_consumer.operations.dead_letter_retry import RetryResult, retry_dead_letters
from history_consumer.operations.dead_letters import list_dead_letters as listed_dead_letters
from history_consumer.operations.dead_letters import show_dead_letter as found_dead_letter
from history_consumer.operations.status import Broker, HistoryStatus, history_status
from history_consumer.rebuild.result import Source
from history_consumer.settings import DeadLetterRetentionSettings
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

app = typer.Typer(help="The history: serve it, see its progress, rebuild it.", no_args_is_help=True)
dead_letters = typer.Typer(help="Dead letters: records that could not be applied.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")


@app.command("serve", epilog="Example:  DATABASE_URL=postgresql://… walletctl history serve")
def serve_history() -> None:
    """Serve the history API over HTTP until SIGTERM.

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
    source: Annotated[Source, typer.Option("--from", help="The source of the new history.")] = "auto",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a new history beside the live one, then swap them; exit 1 if the new one is incomplete.

    Meanwhile the history API serves the old one, and consumers and relays work. Afterwards halted partitions resume.
    The source is the topic if that has every event (auto), else the outbox and then the topic. Events that the outbox
    no longer has come from the ledger. A rebuild that fails changes nothing. It needs as much disk space as the history
    has.

    Settings come from the environment: DATABASE_URL, HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC,
    CONSUMER_GROUP.
    """
    from common.settings import PipelineSettings
    from history_consumer.rebuild.errors import CannotRebuildError
    from history_consumer.rebuild.rebuild import rebuild

    settings = load_settings(PipelineSettings)
    if not yes and not typer.confirm("Replace the present history by a new one?", err=True):
        raise typer.Exit(Exit.FOUND_WRONG)
    try:
        done = run(rebuild(settings, source, progress=progress_bar))
    except CannotRebuildError as error:
        fail(f"{error}. The history is unchanged", Exit.FOUND_WRONG)
    by_partition = {str(partition): offset for partition, offset in sorted(done.positions.items())}
    left = done.retried.left.total()
    found = {**asdict(done), "positions": by_partition, "retried": done.retried.count, "dead_letters": left}
    if as_json:
        print_json(found)
    else:
        positions = ", ".join(f"{partition}@{offset}" for partition, offset in by_partition.items())
        print_fields("Rebuild", {**found, "why": done.why or None, "positions": positions or None})
        out.print("Check the result: walletctl verify")
    if done.missing or left:
        raise typer.Exit(Exit.FOUND_WRONG)


@app.command(epilog="Example:  walletctl history status --json")
def status(as_json: JsonOption = False) -> None:
    """Show positions, lag, gaps and dead letters; exit 1 for a gap, a dead letter, or a history that must be rebuilt.

    With KAFKA_BOOTSTRAP_SERVERS in the environment, it also shows the lag and checks the topic's settings. Exit 1 if
    events may be lost, or may expire before KAFKA_TOPIC_RETENTION_MS. A gap may close while events are in flight.
    """
    settings = load_settings(StatusSettings)
    is_named = bool(settings.kafka_bootstrap_servers)
    broker = Broker(settings.kafka, settings.kafka_topic_retention_ms) if is_named else None

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
        columns = ("wallet", "events", "highest version", "since", "state")
        gaps = [
            (g["wallet_id"], g["event_count"], g["max_version"], g["open_since"], "ALARM" if g["is_old"] else "recent")
            for g in found.oldest_gaps
        ]
        print_table("Gaps: missing versions", columns, gaps)
    if found.dead_letters:
        out.print("List the dead letters: walletctl history dead-letters list")
    if found.old_gaps and found.lag:
        out.print(f"{found.lag:,} records are not read yet: missing events may be among them")
    if found.old_gaps:
        out.print(
            f"[red]alarm:[/red] {found.old_gaps:,} wallets miss a version for more than 30 s. Check for dead letters "
            "and parked events, then run walletctl verify. If the topic lost records, run walletctl history rebuild, "
            "then walletctl outbox replay",
            highlight=False,
        )
    if found.conflicts:
        out.print(
            f"[red]alarm:[/red] {found.conflicts:,} events claim a version that another event has. Run "
            "walletctl history dead-letters list --reason version-conflict, then walletctl verify. If the wallet "
            "database was restored, run walletctl restore begin",
            highlight=False,
        )
    for line in found.topics_unchecked:
        out.print(escape(line), highlight=False, soft_wrap=True)
    for line in found.topics_wrong:
        out.print(f"[red]alarm:[/red] {escape(line)}", highlight=False, soft_wrap=True)
    if found.is_stopped:
        out.print(
            "[red]alarm:[/red] the wallet database was restored, and the history is halted until it is rebuilt. Run "
            "walletctl history rebuild",
            highlight=False,
        )


@dead_letters.command("list", epilog="Example:  walletctl history dead-letters list --reason wrong-shape")
def list_dead_letters(
    reason: Annotated[str | None, typer.Option(help="Only dead letters with this reason.")] = None,
    limit: Annotated[int, typer.Option(help="The most dead letters to list.", min=1, max=10_000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters without their keys and values, newest first."""
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
    """Show one dead letter with its key, headers and value; exit 1 if it doesn't exist."""
    row = with_history_database(lambda engine: found_dead_letter(engine, dead_letter_id))
    if row is None:
        fail(f"dead letter {dead_letter_id} doesn't exist", Exit.FOUND_WRONG)
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
    reason: Annotated[str | None, typer.Option(help="All dead letters with this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Apply dead letters again, as the consumer does; exit 1 if some are left.

    A dead letter that is applied, or that the history has already, is deleted. The other dead letters stay, with
    their present reason. Safe at any time: no event is applied twice, and no position moves.
    """
    if [dead_letter_id is not None, reason is not None, everything].count(True) != 1:
        fail("name the dead letters: an ID, --reason, or --all", Exit.USAGE)
    total = RetryResult()

    async def work(engine: AsyncEngine) -> None:
        with progress_bar("retrying", None) as advance:
            async for done in retry_dead_letters(engine, dead_letter_id=dead_letter_id, reason=reason):
                total.add(done)
                advance(done.count)

    with_history_database(work)
    if dead_letter_id is not None and not total.count:
        fail(f"dead letter {dead_letter_id} doesn't exist", Exit.FOUND_WRONG)
    left = total.left.total()
    if as_json:
        print_json({**asdict(total), "left": left, "reasons": dict(total.left)})
    else:
        fields = {"tried": total.count, "applied": total.applied, "duplicates": total.duplicates, "left": left}
        print_fields("Dead letters", {**fields, **{f"left: {code}": count for code, count in total.left.items()}})
    if total.conflicts:
        print_error(
            f"{total.conflicts:,} events claim a version that another event has, and no retry can apply them. Run "
            "walletctl history dead-letters list --reason version-conflict, then walletctl verify"
        )
    if left:
        raise typer.Exit(Exit.FOUND_WRONG)


@dead_letters.command(
    "prune", epilog="Example:  walletctl history dead-letters prune --older-than-days 90 --reason not-json --dry-run"
)
def prune_dead_letters(
    older_than_days: Annotated[
        float | None, typer.Option(help="Their age in days; default: DEAD_LETTER_RETENTION_DAYS.", min=0, max=36_500)
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only dead letters with this reason.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old dead letters now; the consumers do so in time if DEAD_LETTER_RETENTION_DAYS is set.

    Version conflicts are kept until the history is rebuilt. A deleted dead letter can't be retried. A gap that it left
    in the history stays an alarm, and verify reports it.
    """
    days = older_than_days
    if days is None:
        days = load_settings(DeadLetterRetentionSettings).dead_letter_retention_days
    if days is None:
        fail("name the age: --older-than-days, or DEAD_LETTER_RETENTION_DAYS in the environment", Exit.USAGE)
    total, conflicts = with_history_database(lambda engine: count_prunable(engine, days, reason))
    deleted = 0

    async def work(engine: AsyncEngine) -> None:
        nonlocal deleted
        with progress_bar("pruning", total) as advance:
            async for count in pruned_dead_letters(engine, days, reason):
                deleted += count
                advance(count)

    if not dry_run:
        with_history_database(work)
    count = total if dry_run else deleted
    if as_json:
        print_json({"dead_letters": count, "conflicts_kept": conflicts, "dry_run": dry_run})
    else:
        verb = "would be deleted" if dry_run else "deleted"
        out.print(f"{count:,} dead letters {verb}; {conflicts:,} version conflicts of that age kept.", highlight=False)
