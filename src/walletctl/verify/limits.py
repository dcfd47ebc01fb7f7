"""Limits compared with the ledger: what was set last, what was used, and that no entry took more than was allowed."""

from common.postgres.reading import stream_rows
from walletctl.verify import limit_queries
from walletctl.verify.report import Findings
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.sums import Sums


async def check_limits(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check each wallet's limits and the use of each velocity limit, also of before a horizon, and each overdraft."""
    findings.compared = snapshots.wallet_figures["velocity_limit_count"]
    units = snapshots.scope.unit_parameters
    async for row in stream_rows(snapshots.wallet, limit_queries.LIMITS, **units):
        findings.add(f"wallet {row.wallet_id}", "limits", expected=f"{row.expected} by the ledger", found=row.found)
    if findings.compared:
        async for row in stream_rows(snapshots.wallet, limit_queries.USED):
            findings.add(
                f"limit {row.id} of wallet {row.wallet_id}",
                "used",
                expected=f"{row.expected_minor} minor units and {row.expected_count} movements by the ledger",
                found=f"{row.used_minor} and {row.used_count}",
            )
    if sums.ledger.found.overdrawn:
        since = snapshots.scope.since
        async for row in stream_rows(snapshots.wallet, limit_queries.OVERDRAWN, **units, since=since):
            findings.add(
                f"wallet {row.wallet_id} version {row.wallet_version} (transaction {row.transaction_id})",
                "balance_after without held_after",
                expected=f"at least -{row.overdraft_limit} {row.currency}",
                found=f"{row.own_minor} minor units",
            )
