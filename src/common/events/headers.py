"""The Kafka headers of an event: its CloudEvents attributes, in binary mode."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

SOURCE: Final = "/wallet-api"

SOURCE_EPOCH_HEADER: Final = "ce_sourceepoch"
FIRST_SOURCE_EPOCH: Final = 1
"""The epoch of a database that was never restored, and of records without the header."""

_CONSTANT_HEADERS: Final = (
    ("ce_specversion", "1.0"),
    ("ce_source", SOURCE),
    ("content-type", "application/json"),
)


def cloud_event_headers(
    event_id: str,
    event_type: str,
    aggregate_id: str,
    created_at: datetime,
    source_epoch: int,
    extensions: Mapping[str, str],
) -> list[tuple[str, str | bytes | None]]:
    """Return the Kafka headers of one event.

    `sourceepoch` is an extension of this system. The `traceparent` extension has no prefix, as W3C Trace Context asks.

    Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2 (binary content mode).
    """
    return [
        *_CONSTANT_HEADERS,
        ("ce_id", event_id),
        ("ce_type", event_type),
        ("ce_subject", aggregate_id),
        ("ce_time", created_at.isoformat()),
        (SOURCE_EPOCH_HEADER, str(source_epoch)),
        *extensions.items(),
    ]
