"""Which errors are a server's being away, so that the worker waits instead of ending."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy.exc import SQLAlchemyError

from common.database import (
    DEADLOCK_DETECTED,
    LOCK_NOT_AVAILABLE,
    QUERY_CANCELED,
    SERIALIZATION_FAILURE,
    is_unreachable,
    sqlstate,
)
from common.kafka import TopicMissingError
from common.worker import TemporaryError

_HEALED_BY_TIME: Final = {LOCK_NOT_AVAILABLE, QUERY_CANCELED, DEADLOCK_DETECTED, SERIALIZATION_FAILURE}


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what time may heal in the database into TemporaryError; anything else stays what it is."""
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        if is_unreachable(error) or sqlstate(error) in _HEALED_BY_TIME:
            raise TemporaryError("database", getattr(error, "orig", None) or error) from error
        raise


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Turn what the broker, or the way to it, refuses into TemporaryError: operators heal it, or time."""
    try:
        yield
    except KafkaException as error:
        raise TemporaryError("kafka", error) from error
    except TopicMissingError as error:
        raise TemporaryError("kafka", f"the topic {error} is not there yet") from error
