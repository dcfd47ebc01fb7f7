"""`walletctl outbox prune`."""

from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay import retention
from outbox_relay.retention import RetentionAges
from outbox_relay.settings import OutboxRetentionSettings
from walletctl.console import Exit, JsonOption, fail, load_settings, out, print_json, progress_bar
from walletctl.databases import with_wallet_database


def prune(
    older_than_days: Annotated[
        float | None,
        typer.Option(
            help="Their age in days; default: OUTBOX_RETENTION_DAYS, IDEMPOTENCY_RETENTION_DAYS.", min=1, max=36_500
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="The reason, for the audit table.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old published outbox rows and old idempotency keys now; the relays do so in time.

    Pending, parked and skipped rows are never deleted. A deleted row can't be replayed.
    """
    ages = _ages(older_than_days)
    rows, keys = with_wallet_database(lambda engine: retention.count_prunable(engine, ages))
    if dry_run:
        _report(as_json, rows, keys, dry_run=True)
        return
    deleted = {"rows": 0, "keys": 0}

    async def work(engine: AsyncEngine) -> None:
        with progress_bar("pruning", rows + keys) as advance:
            async for pruned in retention.prune(engine, ages, reason):
                deleted["rows"] += pruned.rows
                deleted["keys"] += pruned.keys
                advance(pruned.rows + pruned.keys)

    try:
        with_wallet_database(work)
    except KeyboardInterrupt:
        fail(f"stopped after {deleted['rows']:,} of {rows:,} rows. Run it again to continue", Exit.FOUND_WRONG)
    _report(as_json, deleted["rows"], deleted["keys"], dry_run=False)


def _ages(older_than_days: float | None) -> RetentionAges:
    if older_than_days is not None:
        return RetentionAges(older_than_days, older_than_days)
    settings = load_settings(OutboxRetentionSettings)
    return RetentionAges(settings.outbox_retention_days, settings.idempotency_retention_days)


def _report(as_json: bool, rows: int, keys: int, *, dry_run: bool) -> None:
    if as_json:
        print_json({"rows": rows, "keys": keys, "dry_run": dry_run})
    else:
        verb = "would be deleted" if dry_run else "deleted"
        out.print(f"{rows:,} published outbox rows and {keys:,} idempotency keys {verb}.", highlight=False)
