"""What a rebuild did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from history_consumer.operations.dead_letter_retry import RetryResult

Source = Literal["auto", "topic", "outbox"]


@dataclass
class RebuildResult:
    """What the new history was made of.

    Args:
        source: where it came from in the end: `topic` alone, or `outbox`, with what the topic has behind it.
        why: why not from the topic alone, or empty.
        records: how many records of the topic were read.
        from_outbox: how many rows the outbox gave.
        from_ledger: how many rows had to be taken from the ledger.
        rows: how many rows the new history has.
        wallets: of how many wallets.
        missing: how many versions that were published it hasn't got.
        positions: where the consumer goes on, by partition.
        retried: what became of the dead letters.
        superseded: how many dead letters went because they tell of what a restore undid.
    """

    source: Source = "topic"
    why: str = ""
    records: int = 0
    from_outbox: int = 0
    from_ledger: int = 0
    rows: int = 0
    wallets: int = 0
    missing: int = 0
    positions: Mapping[int, int] = field(default_factory=dict)
    retried: RetryResult = field(default_factory=RetryResult)
    superseded: int = 0
