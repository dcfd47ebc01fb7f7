"""Every table, with the reason for each CHECK and index. The migrations make exactly this; a test compares.

`wallet` is the schema of what happens (balances, ledger, outbox), `history` that of what is told about it.
The history may live in another database, so nothing joins the two.
"""

from common.tables import history, wallet
from common.tables.base import metadata

__all__ = ["history", "metadata", "wallet"]
