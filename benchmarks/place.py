"""The place of one measurement: its database and its topic."""

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
from sqlalchemy.engine import make_url
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from benchmarks import queries
from common.access.caller import SCOPES
from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.tables.roles import Role
from walletctl.stack.specs import walletctl

PARTITIONS: Final = 12
PASSWORD: Final = "benchmark"  # noqa: S105 - of a server that ends with the run
"""The password of each role."""

PAUSE_SECONDS: Final = 0.2
SETTLED_SECONDS: Final = 0.5
WAIT_SECONDS_MAX: Final = 300.0
READ_SECONDS_MAX: Final = 20.0


class PromiseBrokenError(Exception):
    """The measured system broke a promise: the figures are invalid."""


@dataclass(frozen=True)
class Place:
    """One database and one topic."""

    url: str
    kafka_servers: str
    topic: str

    def environment_of(self, role: Role) -> dict[str, str]:
        """Return the environment of one of our processes, which logs in as that role."""
        url = make_url(self.url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)
        return {**self.environment, "DATABASE_URL": url, "HISTORY_DATABASE_URL": url}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that may do everything on this place."""
        return {
            "DATABASE_URL": self.url,
            "HISTORY_DATABASE_URL": self.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_servers,
            "KAFKA_TOPIC": self.topic,
        }

    def new_key(self) -> str:
        """Create an API key with all scopes, as an operator does, and return it."""
        command = walletctl("keys", "create", "--name=bench", f"--scopes={','.join(SCOPES)}", "--json")
        done = subprocess.run(command, env={**os.environ, **self.environment}, check=True, stdout=subprocess.PIPE)
        return str(orjson.loads(done.stdout)["key"])

    @cached_property
    def _admin(self) -> AdminClient:
        return admin_client(KafkaConnection(self.kafka_servers))

    def drain(self, *, timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait until no row is pending.

        Raises:
            TimeoutError: rows are still pending.
        """
        self._wait(queries.PENDING, lambda pending: pending == 0, timeout_seconds)

    def settle(self) -> None:
        """Wait until the API has made no movement for a while: it goes on with requests whose clients have left."""
        before = -1
        while (movements := queries.value(self.url, queries.MOVEMENTS)) != before:
            before = movements
            time.sleep(SETTLED_SECONDS)

    def catch_up(self, *, timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait until every record of the topic is applied.

        Raises:
            TimeoutError: records are still not applied.
        """
        # A request whose client has gone may still add a record meanwhile.
        records = self.record_count()
        self._wait(queries.NEXT_OFFSETS, lambda position: position >= records, timeout_seconds)

    def fill(self, records: int) -> None:
        """Wait until the topic has so many records.

        Raises:
            TimeoutError: it has fewer.
        """
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while (found := self.record_count()) < records:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found:,} of {records:,} events were in Kafka after {WAIT_SECONDS_MAX:.0f} s")
            time.sleep(PAUSE_SECONDS)

    def _wait(self, query: str, is_over: Callable[[int], bool], timeout_seconds: float) -> None:
        queries.poll(
            self.url,
            query,
            is_over,
            pause_seconds=PAUSE_SECONDS,
            timeout_seconds=timeout_seconds,
        )

    def verify(self) -> float:
        """Check with `walletctl verify` that no promise was broken; return how many seconds it compared.

        Raises:
            PromiseBrokenError: `walletctl verify` found a difference.
        """
        done = subprocess.run(
            walletctl("verify", "--json"),
            env={**os.environ, **self.environment_of(Role.AUDITOR)},
            capture_output=True,
            check=False,
        )
        report = orjson.loads(done.stdout or b"{}")
        if not report.get("ok"):
            raise PromiseBrokenError(str(report.get("differences") or done.stderr.decode()[-2000:]))
        return float(report["seconds"])

    # A new topic has no leaders yet.
    @retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(10), wait=wait_fixed(0.1), reraise=True)
    def record_count(self) -> int:
        """Return the number of the topic's records."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(self.topic, number): latest for number in range(PARTITIONS)}
        return sum(future.result().offset for future in self._admin.list_offsets(asked).values())

    def records(self) -> Iterator[tuple[float, bytes]]:
        """Yield each record's append time, in seconds, and its value.

        The broker's timestamps are cut to whole milliseconds: the average of what is cut off, half of one, is added.

        Raises:
            KafkaException: the broker failed.
            TimeoutError: the broker didn't answer.
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
