"""Where one measurement takes place: a database and a topic of its own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from benchmarks import queries
from common.kafka.clients import admin_client
from walletctl.stack.specs import walletctl

PARTITIONS: Final = 12
PAUSE_SECONDS: Final = 0.2
WAIT_SECONDS_MAX: Final = 300.0
READ_SECONDS_MAX: Final = 20.0


class PromiseBrokenError(Exception):
    """What was measured isn't what was promised: the figures are worth nothing."""


@dataclass(frozen=True)
class Place:
    """One database and one topic."""

    url: str
    kafka_servers: str
    topic: str

    @property
    def environment(self) -> dict[str, str]:
        """What tells a service of ours to work here."""
        return {
            "DATABASE_URL": self.url,
            "HISTORY_DATABASE_URL": self.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_servers,
            "KAFKA_TOPIC": self.topic,
        }

    @cached_property
    def _admin(self) -> AdminClient:
        return admin_client(self.kafka_servers)

    def drain(self) -> None:
        """Wait until nothing is pending.

        Raises:
            TimeoutError: something still is.
        """
        self._wait(queries.PENDING, lambda pending: pending == 0)

    def catch_up(self) -> None:
        """Wait until all of the topic is applied.

        Raises:
            TimeoutError: something still isn't.
        """
        # A request that nobody waits for any more may still bring another record meanwhile.
        records = self.record_count()
        self._wait(queries.NEXT_OFFSETS, lambda position: position >= records)

    def fill(self, records: int) -> None:
        """Wait until the topic has so many records.

        Raises:
            TimeoutError: it hasn't got them.
        """
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while (found := self.record_count()) < records:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found:,} of {records:,} events were in Kafka after {WAIT_SECONDS_MAX:.0f} s")
            time.sleep(PAUSE_SECONDS)

    def _wait(self, query: str, is_over: Callable[[int], bool]) -> None:
        queries.watch(
            self.url,
            query,
            is_over,
            pause_seconds=PAUSE_SECONDS,
            timeout_seconds=WAIT_SECONDS_MAX,
        )

    def verify(self) -> None:
        """Prove that nothing of what happened here broke a promise.

        Raises:
            PromiseBrokenError: `walletctl verify` found a difference.
        """
        done = subprocess.run(
            walletctl("verify", "--json"), env={**os.environ, **self.environment}, capture_output=True, check=False
        )
        report = orjson.loads(done.stdout or b"{}")
        if not report.get("ok"):
            raise PromiseBrokenError(str(report.get("differences") or done.stderr.decode()[-2000:]))

    # A topic that was just made has no leaders yet.
    @retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(10), wait=wait_fixed(0.1), reraise=True)
    def record_count(self) -> int:
        """Return how many records the topic has."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(self.topic, number): latest for number in range(PARTITIONS)}
        return sum(future.result().offset for future in self._admin.list_offsets(asked).values())

    def records(self) -> Iterator[tuple[float, bytes]]:
        """Yield every record: when the broker appended it, in seconds, and its value.

        The broker's clock has whole milliseconds: half of one is added, for what was cut off on the average.

        Raises:
            KafkaException: the broker failed.
            TimeoutError: it doesn't answer.
        """
        left = self.record_count()
        consumer = Consumer({"bootstrap.servers": self.kafka_servers, "group.id": "bench", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        try:
            while left > 0:
                messages = consumer.consume(min(left, 10_000), timeout=READ_SECONDS_MAX)
                if not messages:
                    raise TimeoutError(f"{left:,} records of {self.topic} could not be read")
                for message in messages:
                    if message.error():
                        raise KafkaException(message.error())
                    left -= 1
                    yield (message.timestamp()[1] + 0.5) / 1e3, message.value() or b""
        finally:
            consumer.close()
