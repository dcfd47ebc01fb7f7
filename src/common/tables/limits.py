"""The table of velocity limits in the schema `wallet`, with the reason for each CHECK."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from common.tables.base import TIMESTAMP, metadata

velocity_limits = Table(
    "velocity_limits",
    metadata,
    # The velocity limits of wallets, each with what is used of it in one window. A row changes under the lock of its
    # wallet, or by compare-and-set of the wallet's version, with an entry in the ledger.
    Column("wallet_id", Uuid, ForeignKey("wallet.wallets.id"), primary_key=True),
    # The client's id.
    Column("id", Text, primary_key=True),
    # The order of the wallet's limits, from 1.
    Column("position", SmallInteger, nullable=False),
    Column("direction", Text, nullable=False),
    # The types of ledger entries that count; NULL is all.
    Column("types", ARRAY(Text)),
    Column("window", Text, nullable=False),
    Column("amount_minor", BigInteger),
    Column("count", Integer),
    # The version of the wallet, and its time, that set the limit. Later versions count.
    Column("since_version", BigInteger, nullable=False),
    Column("since", TIMESTAMP, nullable=False),
    # The beginning of the window in which these were used. A window that is over is replaced by the next use.
    Column("window_start", TIMESTAMP, nullable=False),
    # NUMERIC, because a limit without an amount counts the sum of any number of amounts.
    Column("used_minor", Numeric, nullable=False),
    Column("used_count", BigInteger, nullable=False),
    # The values that the code knows.
    CheckConstraint("direction IN ('in', 'out')", "direction"),
    CheckConstraint("\"window\" IN ('transaction', 'day', 'week', 'month')", "window"),
    # A limit that limits nothing would mislead.
    CheckConstraint("coalesce(amount_minor, 0) > 0 OR coalesce(count, 0) > 0", "limit"),
    # No more is given back than was used.
    CheckConstraint("used_minor >= 0 AND used_count >= 0", "used"),
    schema="wallet",
    # Each use updates the row: free space keeps the update on its page (HOT).
    postgresql_with={"fillfactor": "70"},
)
