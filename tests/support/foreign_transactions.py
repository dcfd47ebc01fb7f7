"""A foreign producer that writes to the topic in transactions, which a relay never does."""

from typing import Self
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

_TIMEOUT_SECONDS = 20.0
_TRANSACTION_TIMEOUT_MS = 300_000
"""The broker aborts a transaction that is open for longer than this: longer than any test."""


class ForeignProducer:
    """A producer of transactions. It aborts the transaction that is open when its block ends.

    A commit or an abort leaves one marker in each partition written to: an offset without a record.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._is_open = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": f"foreign-{uuid4().hex}",
                "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
                "linger.ms": 0,
            }
        )
        self._producer.init_transactions(_TIMEOUT_SECONDS)

    def write(self, *values: bytes, partition: int = 0) -> list[int]:
        """Write to one partition, in the open transaction or a new one; return the confirmed offsets."""
        offsets: list[int] = []

        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            offsets.append(message.offset() or 0)

        if not self._is_open:
            self._producer.begin_transaction()
            self._is_open = True
        for value in values:
            self._producer.produce(self._topic, value, partition=partition, on_delivery=note)
        assert self._producer.flush(_TIMEOUT_SECONDS) == 0
        return offsets

    def commit(self) -> None:
        """Commit the open transaction."""
        self._producer.commit_transaction(_TIMEOUT_SECONDS)
        self._is_open = False

    def abort(self) -> None:
        """Abort the open transaction."""
        self._producer.abort_transaction(_TIMEOUT_SECONDS)
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            self.abort()
