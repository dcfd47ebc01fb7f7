"""Which errors are a server's being away, so that the worker waits instead of ending."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import SQLAlchemyError

from common.database import DRIVER_ERRORS, explained, is_temporary
from common.kafka import TopicMissingError
from common.worker import TemporaryError


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what time may heal in the database into TemporaryError; anything else stays what it is."""
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError, *DRIVER_ERRORS) as error:
        if is_temporary(error):
            raise TemporaryError("database", explained(error)) from error
        raise


@contextmanager
def kafka_errors(group: str, topic: str) -> Iterator[None]:
    """Turn what the broker, or the way to it, refuses into TemporaryError: operators heal it, or time."""
    try:
        yield
    except KafkaException as error:
        raise TemporaryError("kafka", kafka_explained(error.args[0], group, topic)) from error
    except TopicMissingError as error:
        raise TemporaryError("kafka", f"the topic {error} is not there yet") from error


def kafka_explained(error: KafkaError, group: str, topic: str) -> str:
    """Return what is wrong; if something is denied, what, and to whom, as far as a client without a login knows."""
    said = f"{error.name()}: {error.str()}"
    # A fatal error (KIP-848) has the reason in its text alone.
    if "Topic authorization failed" in said:
        denied = f"READ on the topic {topic}"
    elif "Group authorization failed" in said:
        denied = f"READ on the group {group}"
    else:
        return said
    return f"{denied} is denied to this client (User:ANONYMOUS, unless the broker gives it a name): {said}"
