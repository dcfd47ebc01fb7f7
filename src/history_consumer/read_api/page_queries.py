"""The SQL of the history's pages: one statement a page, so that rows and completeness are of one snapshot."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.http.pagination import Order
from common.postgres.database_health import usability_query

USABLE: Final = usability_query(
    {"history.transaction_events": "SELECT", "history.wallet_progress": "SELECT"},
    writes=False,
)
"""The health check of the history API's database: has the role its privileges?"""

# `event_data` as text: the driver would parse it, and the reply has it as it is.
_COLUMNS: Final = """
    wallet_id, wallet_version, event_id, event_type, user_id, transaction_id, direction, amount_minor, currency,
    balance_after_minor, counterparty_wallet_id, event_data::text AS event_data, created_at, recorded_at
"""

_FILTERS: Final = """
    AND (cast(:event_types AS text[]) IS NULL OR event_type = ANY(cast(:event_types AS text[])))
    AND (cast(:since AS timestamptz) IS NULL OR created_at >= cast(:since AS timestamptz))
    AND (cast(:until AS timestamptz) IS NULL OR created_at < cast(:until AS timestamptz))
"""

# To a caller that is bound to a user, a wallet of another user is like a wallet of which no event has arrived yet.
_READABLE: Final = "(cast({user_id} AS text) IS NULL OR progress.user_id = cast({user_id} AS text))"

# The highest version below the first gap: up to there, each version equals its row number. Computed only for wallets
# with a gap.
_AS_OF_VERSION: Final = """
    CASE WHEN event_count = max_version THEN max_version ELSE (
        SELECT coalesce(max(wallet_version), 0)
        FROM (
            SELECT wallet_version, row_number() OVER (ORDER BY wallet_version) AS number
            FROM history.transaction_events WHERE wallet_id = :wallet_id
        ) AS numbered
        WHERE wallet_version = number
    ) END
"""

# If there are as many events up to a version as its number, none is missing. Counted only for wallets with a gap that
# have enough events.
REACHED_VERSIONS: Final = text(f"""
    SELECT wanted.wallet_id, wanted.user_id, wanted.version
    FROM unnest(cast(:wallet_ids AS uuid[]), cast(:user_ids AS text[]), cast(:versions AS bigint[]))
        AS wanted (wallet_id, user_id, version)
    JOIN history.wallet_progress AS progress USING (wallet_id)
    WHERE {_READABLE.format(user_id="wanted.user_id")} AND progress.event_count >= wanted.version AND (
        progress.event_count = progress.max_version
        OR wanted.version = (
            SELECT count(*) FROM history.transaction_events AS event
            WHERE event.wallet_id = wanted.wallet_id AND event.wallet_version <= wanted.version
        )
    )
""")  # noqa: S608

_WALLET_PAGE: Final = """
    SELECT progress.complete, progress.as_of_version, progress.event_count, event.*
    FROM (
        SELECT event_count = max_version AS complete, {as_of_version} AS as_of_version, event_count
        FROM history.wallet_progress AS progress WHERE wallet_id = :wallet_id AND {readable}
    ) AS progress
    LEFT JOIN (
        SELECT {columns} FROM history.transaction_events
        WHERE wallet_id = :wallet_id AND wallet_version {compare} :after_version {filters}
        ORDER BY wallet_version {direction} LIMIT :limit
    ) AS event ON true
    ORDER BY event.wallet_version {direction}
"""

_USER_PAGE: Final = """
    SELECT progress.complete, progress.event_count, event.*
    FROM (
        SELECT coalesce(bool_and(event_count = max_version), false) AS complete,
            coalesce(sum(event_count), 0)::bigint AS event_count
        FROM history.wallet_progress WHERE user_id = :user_id
    ) AS progress
    LEFT JOIN (
        SELECT {columns} FROM history.transaction_events
        WHERE user_id = :user_id AND (event_id, wallet_id) {compare} (:after_event_id, :after_wallet_id) {filters}
        ORDER BY event_id {direction}, wallet_id {direction} LIMIT :limit
    ) AS event ON true
    ORDER BY event.event_id {direction}, event.wallet_id {direction}
"""


def _in_both_orders(statement: str) -> dict[Order, TextClause]:
    words = {
        "columns": _COLUMNS,
        "filters": _FILTERS,
        "as_of_version": _AS_OF_VERSION,
        "readable": _READABLE.format(user_id=":caller_user_id"),
    }
    return {
        "asc": text(statement.format(compare=">", direction="ASC", **words)),
        "desc": text(statement.format(compare="<", direction="DESC", **words)),
    }


WALLET_PAGE: Final = _in_both_orders(_WALLET_PAGE)
USER_PAGE: Final = _in_both_orders(_USER_PAGE)


@dataclass(frozen=True, slots=True)
class Filters:
    """The rows of a list: of these types (None: any), created at `since` or later and before `until`."""

    event_types: Sequence[str] | None
    since: datetime | None
    until: datetime | None

    def parameters(self) -> dict[str, Any]:
        """Return the statement's parameters."""
        return {"event_types": self.event_types, "since": self.since, "until": self.until}

    def canonical(self) -> tuple[object, ...]:
        """Return equal values for filters that select the same rows."""
        return sorted(set(self.event_types or ())), self.since, self.until


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a history, all of one snapshot.

    Attributes:
        rows: of this page.
        complete: whether no version is known to be missing.
        as_of_version: no version of the wallet is missing up to this one; None for a user.
        event_count: how many events of the wallet or the user the history has, on all pages.
    """

    rows: Sequence[RowMapping]
    complete: bool
    as_of_version: int | None
    event_count: int


class WantedVersion(NamedTuple):
    """A version that a request waits for; `user_id` is that of its caller, if the caller is bound to a user."""

    wallet_id: UUID
    user_id: str | None
    version: int


async def wallet_page(
    connection: AsyncConnection,
    wallet_id: UUID,
    caller_user_id: str | None,
    order: Order,
    after_version: int,
    filters: Filters,
    limit: int,
) -> Page:
    """Return the wallet's rows that follow `after_version`; an unknown wallet is not complete, as of version 0."""
    parameters = {
        "wallet_id": wallet_id,
        "caller_user_id": caller_user_id,
        "after_version": after_version,
        "limit": limit,
        **filters.parameters(),
    }
    found = (await connection.execute(WALLET_PAGE[order], parameters)).mappings().all()
    rows = [row for row in found if row["wallet_id"] is not None]
    if not found:
        return Page(rows, complete=False, as_of_version=0, event_count=0)
    return Page(rows, found[0]["complete"], found[0]["as_of_version"], found[0]["event_count"])


async def user_page(
    connection: AsyncConnection, user_id: str, order: Order, after: tuple[UUID, UUID], filters: Filters, limit: int
) -> Page:
    """Return the user's rows that follow `after` (event, wallet)."""
    parameters = {
        "user_id": user_id,
        "after_event_id": after[0],
        "after_wallet_id": after[1],
        "limit": limit,
        **filters.parameters(),
    }
    found = (await connection.execute(USER_PAGE[order], parameters)).mappings().all()
    rows = [row for row in found if row["wallet_id"] is not None]
    return Page(rows, found[0]["complete"], None, found[0]["event_count"])


async def reached_versions(connection: AsyncConnection, wanted: Collection[WantedVersion]) -> set[WantedVersion]:
    """Return those versions up to which no version of their wallets is missing, and that their callers may read."""
    parameters = {
        "wallet_ids": [each.wallet_id for each in wanted],
        "user_ids": [each.user_id for each in wanted],
        "versions": [each.version for each in wanted],
    }
    return {WantedVersion(*row) for row in await connection.execute(REACHED_VERSIONS, parameters)}
