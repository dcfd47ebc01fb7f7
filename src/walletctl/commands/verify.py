"""`walletctl verify`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from walletctl.console import Exit, JsonOption, load_settings, out, print_fields, print_json, print_table, progress_bar
from walletctl.databases import run

if TYPE_CHECKING:
    from walletctl.verify.report import Report


app = typer.Typer(add_completion=False)


SinceOption = Annotated[
    bool,
    typer.Option(
        "--since",
        help="Compare only what came after the last clean run. Rows that were changed since, and are older, are not"
        " seen. Everything is compared if there was no clean run, or if a database, the topic, or the number of older"
        " rows has changed.",
    ),
]


@app.command("verify")
def verify(since_last: SinceOption = False, as_json: JsonOption = False) -> None:
    """Prove that wallets, ledger, outbox, topic and history agree; exit 1 if they do not.

    Compares every row and record. Runs beside live traffic: events that the history does not have yet are counted, and
    are no difference. At most 100 differences are listed. All are counted. A clean run stores its horizon, if the role
    may; nothing else is changed.

    Settings come from the environment: DATABASE_URL, HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC,
    CONSUMER_GROUP.

    Examples:  eval "$(walletctl stack env)"; walletctl verify   ·   walletctl verify --since --json | jq .differences
    """
    from common.garbage_collector import tune_garbage_collector
    from common.settings import PipelineSettings
    from walletctl.verify.audit import audit

    settings = load_settings(PipelineSettings)
    tune_garbage_collector()
    report = run(audit(settings, since_last=since_last, progress=progress_bar))
    if as_json:
        print_json(report.as_json())
    else:
        print_report(report)
    if not report.ok:
        raise typer.Exit(Exit.FOUND_WRONG)


def print_report(report: "Report") -> None:
    """Print the checks, the horizon up to which they looked, and the differences."""
    rows = [
        (
            check.name,
            f"{check.compared:,} {check.unit}",
            f"{check.difference_count:,} differ" if check.difference_count else "holds",
            f"{check.seconds:.1f}",
        )
        for check in report.checks
    ]
    print_table("Verified", ("promise", "compared", "result", "seconds"), rows)
    horizon = report.horizon
    if report.why_all:
        out.print(f"everything was compared: {report.why_all}", highlight=False, soft_wrap=True)
    offsets = ", ".join(f"{partition}@{offset}" for partition, offset in sorted(horizon.next_offsets.items()))
    print_fields(
        "Up to",
        {
            "only after": report.since and f"{report.since:%F %T.%f} UTC",
            "time": f"{horizon.taken_at:%F %T.%f} UTC",
            "outbox id": horizon.last_outbox_id,
            "history's positions": offsets or None,
            "pending, parked, skipped": f"{horizon.pending:,}, {horizon.parked:,}, {horizon.skipped:,}",
            "on their way": f"{horizon.on_their_way:,} versions",
            "pruned from the outbox": f"{horizon.pruned:,} versions",
            "source epoch": horizon.source_epoch,
            "topic": f"{horizon.topic_expired:,} expired, {horizon.topic_duplicates:,} duplicates, "
            f"{horizon.topic_superseded:,} superseded",
            "stored as clean up to": report.clean_up_to and f"{report.clean_up_to:%F %T.%f} UTC",
            "wallets with gaps": f"{horizon.history_gaps:,} in the history",
        },
    )
    for line in report.differences:
        out.print(f"[red]differs:[/red] {escape(line)}", soft_wrap=True, highlight=False)
    hidden = report.difference_count - len(report.differences)
    if hidden:
        out.print(f"… and {hidden:,} more", highlight=False)
    verdict = "[green]everything agrees[/green]" if report.ok else f"[red]{report.difference_count:,} differences[/red]"
    out.print(verdict, highlight=False)
