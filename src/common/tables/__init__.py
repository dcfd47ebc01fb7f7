"""All tables, with the reason for each CHECK and index. The migrations create exactly these; a test compares the two.

The schema `wallet` has the balances, the ledger, the outbox and the API keys. The schema `history` has what consumers
made of the events. It may be in another database, so no statement joins the two.
"""

from common.tables import access, history, limits, outbox, wallet
from common.tables.base import metadata

__all__ = ["access", "history", "limits", "metadata", "outbox", "wallet"]
