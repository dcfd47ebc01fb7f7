from datetime import UTC, datetime
from uuid import UUID

from common.events.headers import cloud_event_headers

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_the_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    event_id, wallet_id = str(UUID(int=1)), str(UUID(int=3))
    headers = cloud_event_headers(event_id, "WALLET_FUNDED", wallet_id, MOMENT, 2, {"traceparent": "00-ab-cd-01"})
    assert dict(headers) == {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/wallet-api",
        "ce_type": "WALLET_FUNDED",
        "ce_subject": wallet_id,
        "ce_time": "2026-01-02T03:04:05.678901+00:00",
        "ce_sourceepoch": "2",
        "content-type": "application/json",
        "traceparent": "00-ab-cd-01",
    }
    without = cloud_event_headers(event_id, "WALLET_FUNDED", wallet_id, MOMENT, 2, {})
    assert without == headers[:-1]
