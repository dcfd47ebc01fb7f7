"""What PostgreSQL's plan of a statement says that it read."""

from typing import Any


def ledger_rows_read(plan: dict[str, Any]) -> float:
    """Return how many rows of the ledger the plan's scans read; the plan is that of EXPLAIN (ANALYZE, FORMAT JSON)."""
    below = sum(ledger_rows_read(child) for child in plan.get("Plans", []))
    if plan.get("Relation Name") != "wallet_transactions":
        return below
    rows: float = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return below + rows
