"""What a client says reaches the process until the client is silenced."""

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError

from common.kafka.callbacks import ClientCallbacks

FATAL = ("FATAL", "client#1", "[thrd:127.0.0.1:1/1]: Fatal error: Broker: Cluster authorization failed: no PID")


def test_a_silenced_client_reports_no_error_and_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[KafkaError] = []
    callbacks = ClientCallbacks(errors.append, errors.append)
    properties: dict[str, Any] = callbacks.properties()

    def say_everything() -> None:
        properties["error_cb"](KafkaError(KafkaError._AUTHENTICATION))
        properties["logger"].log(logging.CRITICAL, "%s [%s] %s", *FATAL)

    say_everything()
    assert [error.fatal() for error in errors] == [False, True]
    assert len(caplog.records) == 1
    callbacks.silence()
    say_everything()
    assert len(errors) == 2
    assert len(caplog.records) == 1


def test_the_fatal_error_is_taken_from_the_log_line_that_the_client_writes_before_it() -> None:
    errors: list[KafkaError] = []
    callbacks = ClientCallbacks(lambda _: None, errors.append)
    callbacks.log(logging.ERROR, "%s [%s] %s", "FAIL", "client#1", "[thrd:main]: no Fatal error: at all")
    callbacks.log(logging.CRITICAL, "%s [%s] %s", *FATAL)
    (error,) = errors
    assert (error.str(), error.fatal()) == ("Broker: Cluster authorization failed: no PID", True)
