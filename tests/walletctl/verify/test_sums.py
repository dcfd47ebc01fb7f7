"""The hash of a row, and the slices of time."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from walletctl.verify.scope import BEGINNING, SLICES, scope_of
from walletctl.verify.sum_queries import hash_of

NOW = datetime(2026, 11, 26, tzinfo=UTC)
FIGURES = {"pruned_up_to": None, "oldest_at": NOW - timedelta(days=30), "taken_at": NOW}


async def test_rows_that_exchange_a_field_have_another_sum(engine: AsyncEngine) -> None:
    query = "SELECT sum({hash})::text FROM (VALUES ('a', {one}), ('b', {other})) AS rows (name, amount)"
    sums = set()
    async with engine.connect() as connection:
        for one, other in ((1, 2), (2, 1)):
            statement = text(query.format(hash=hash_of("name", "amount"), one=one, other=other))
            # Hashes wrap around. Without the second hash, the sums would be the same but for that.
            sums.add(int(await connection.scalar(statement, {"seed": 7}) or 0) % 2**64)
    assert len(sums) == 2


@pytest.mark.parametrize("since", [BEGINNING, NOW - timedelta(days=3)])
@pytest.mark.parametrize("pruned_up_to", [None, NOW - timedelta(days=7), NOW - timedelta(days=1)])
@pytest.mark.parametrize("oldest_at", [None, NOW - timedelta(days=30), NOW])
def test_slices_ascend_from_what_retention_has_left(
    since: datetime, pruned_up_to: datetime | None, oldest_at: datetime | None
) -> None:
    figures = {"pruned_up_to": pruned_up_to, "oldest_at": oldest_at, "taken_at": NOW}
    scope = scope_of(figures, ["EUR", "ZZZ"], [], since)
    assert list(scope.bounds) == sorted(set(scope.bounds))
    assert len(scope.bounds) == SLICES
    assert scope.bounds[0] == max(since, pruned_up_to or BEGINNING) + timedelta(microseconds=1)
    assert scope.units == {"EUR": "0.01"}
