"""What metrics and logs say of a committed batch."""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from history_consumer import metrics
from history_consumer.consumer.deduplication import VERSION_CONFLICT, ClassifiedBatch
from history_consumer.consumer.records import DeadLetter, Record

log = structlog.get_logger()


def report_batch(records: Sequence[Record], classified: ClassifiedBatch) -> None:
    """Count what was committed, and log each dead letter.

    Args:
        records: of the batch.
        classified: the rows and the dead letters that they became.
    """
    metrics.records.inc(sum(record.content != () for record in records))
    metrics.rows.labels("new").inc(len(classified.rows))
    metrics.rows.labels("duplicate").inc(classified.duplicate_count)
    if classified.rows:
        oldest = min(row.created_at for row in classified.rows)
        metrics.lag_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))
    for letter in classified.dead_letters:
        _report_dead_letter(letter)


def _report_dead_letter(letter: DeadLetter) -> None:
    reason, detail = letter.poison.reason, letter.poison.detail
    metrics.dead_letters.labels(reason).inc()
    event = "record_put_aside"
    if reason == VERSION_CONFLICT:
        metrics.conflicts.inc()
        event = "version_conflict"
    log.error(event, reason=reason, detail=detail, **letter.record.log_fields())
