import pytest
from pydantic import ValidationError

from history_consumer.settings import HistoryApiSettings

URL = "postgresql://nobody@127.0.0.1/none"


def test_a_min_version_wait_beyond_the_request_deadline_is_refused() -> None:
    HistoryApiSettings(database_url=URL, history_min_version_wait_seconds=4.9, request_deadline_seconds=5)
    for wait_seconds, deadline_seconds in ((5, 5), (12, 10), (2, 1)):
        with pytest.raises(ValidationError, match="less than REQUEST_DEADLINE_SECONDS, which is") as refused:
            HistoryApiSettings(
                database_url=URL,
                history_min_version_wait_seconds=wait_seconds,
                request_deadline_seconds=deadline_seconds,
            )
        assert [error["loc"] for error in refused.value.errors()] == [("history_min_version_wait_seconds",)]
