"""What a rebuild did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from history_consumer.operations.dead_letter_retry import RetryResult

Source = Literal["auto", "topic", "outbox"]
"""What a history is rebuilt from: the topic alone, or the outbox and then the topic; "auto" decides."""


@dataclass
class RebuildResult:
    """What the new history was made from.

    Args:
        source: `topic` alone, or `outbox` and then the topic.
        why: why the topic alone was not enough, or empty.
        records: how many records of the topic were read.
        from_outbox: how many rows came from the outbox.
        from_ledger: how many rows came from the ledger.
        rows: how many rows the new history has.
        wallets: how many wallets it has.
        missing: how many published versions it does not have.
        positions: where the consumer continues, by partition.
        retried: the outcome of the dead letters' retry.
        superseded: how many dead letters were deleted because a restore had undone their events.
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
