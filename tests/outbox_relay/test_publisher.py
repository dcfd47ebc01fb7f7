"""Records that a broker refuses, and a slow broker: a real one behind a network that delays."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.kafka.topics import set_settings
from common.secrets import Secret
from common.worker import TemporaryError
from outbox_relay.publisher import BrokerAwayError, Publisher
from outbox_relay.relay import Relay
from outbox_relay.run import HUNG_TRANSACTION_SECONDS
from outbox_relay.settings import RelaySettings
from support.outboxes import Outbox
from support.ports import free_port
from support.proxy import HOST, Proxy
from support.relay_pipeline import RelayPipeline
from tools.servers import running
from walletctl.stack.kafka import Kafka
from walletctl.stack.readiness import KafkaProbe

MESSAGE_BYTES_MAX = 2000
POISON = f'{{"too": "{"".join(str(number) for number in range(3000))}"}}'


@pytest.fixture(scope="module")
def broker_link() -> Iterator[Proxy]:
    """The only connection to this module's broker, in a thread, because clients block."""
    link, loop = Proxy(free_port(), free_port()), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with link:
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    yield link
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def kafka_bootstrap_servers(tmp_path_factory: pytest.TempPathFactory, broker_link: Proxy) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("distant-kafka")
    broker = Kafka(
        directory / "kafka",
        broker_link.target_port,
        free_port(),
        directory / "kafka.log",
        f"{HOST}:{broker_link.port}",
    )
    broker.prepare()
    with running(broker.launch(), broker.log_file, KafkaProbe(HOST, broker.port), broker.stop_signal):
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def kafka_admin(kafka_bootstrap_servers: str) -> AdminClient:
    return admin_client(KafkaConnection(kafka_bootstrap_servers))


@pytest.fixture
def small_topic(kafka_bootstrap_servers: str, topic: str) -> str:
    """A topic that refuses batches of more than 2,000 bytes."""
    asyncio.run(
        set_settings(KafkaConnection(kafka_bootstrap_servers), topic, {"max.message.bytes": str(MESSAGE_BYTES_MAX)})
    )
    return topic


@pytest.fixture
def slow(broker_link: Proxy) -> Iterator[Callable[[float], None]]:
    """Return a function that delays each packet to and from the broker."""

    def slow_down(seconds: float) -> None:
        broker_link.delay_seconds = seconds

    yield slow_down
    broker_link.delay_seconds = 0


async def timed_drain(relay: Relay, outbox: Outbox, runs_max: int) -> None:
    """Run until no row is pending; each run must end before PostgreSQL would end its session."""
    for _ in range(runs_max):
        started = time.monotonic()
        with suppress(TemporaryError):
            await relay.run_once()
        assert time.monotonic() - started < HUNG_TRANSACTION_SECONDS
        rows = await outbox.rows()
        if all(row["published_at"] or row["parked_at"] for row in rows):
            return
    pytest.fail(f"{sum(not (row['published_at'] or row['parked_at']) for row in rows)} rows are still pending")


def last_event_ids(messages: list[Message], wallet: UUID) -> list[str]:
    """Return the wallet's events in the order of their last records."""
    found: dict[str, None] = {}
    for message in messages:
        if message.key() == str(wallet).encode():
            event_id = dict(message.headers() or [])["ce_id"].decode()  # type: ignore[union-attr]
            found.pop(event_id, None)
            found[event_id] = None
    return list(found)


async def test_rows_that_a_slow_broker_refuses_are_found_in_time(
    pipeline: RelayPipeline, small_topic: str, slow: Callable[[float], None]
) -> None:
    del small_topic
    wallets = [uuid4() for _ in range(60)]
    poisoned = wallets[::20]
    for part in range(3):
        for wallet in wallets:
            await pipeline.write(wallet, 16)
            if part == 1 and wallet in poisoned:
                await pipeline.write(wallet, 1, POISON)
    slow(0.005)
    await timed_drain(pipeline.new_relay(), pipeline, 30)
    slow(0)
    messages = pipeline.read_topic()
    rows = await pipeline.rows()
    for wallet in wallets:
        own = [row for row in rows if row["aggregate_id"] == wallet]
        published = [str(row["event_id"]) for row in own if row["published_at"]]
        assert len(published) == (32 if wallet in poisoned else 48)
        assert last_event_ids(messages, wallet) == published
        assert all("too large" in row["last_error"].lower() for row in own[32:33] if wallet in poisoned)


async def test_a_relay_that_knows_what_the_topic_takes_has_only_bad_records_refused(
    pipeline: RelayPipeline, small_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del small_topic
    for _ in range(30):
        await pipeline.write(uuid4(), 10)
    await pipeline.write(uuid4(), 1, POISON)
    # On a busy machine too, the broker takes all of them in one step.
    relay, sends = pipeline.new_relay(relay_delivery_timeout_seconds=10), []
    relay._publisher.batch_bytes_max = MESSAGE_BYTES_MAX

    def counted(self: Publisher, rows: Any, *more: Any) -> Any:
        sends.append(len(rows))
        return send(self, rows, *more)

    send = Publisher._send
    monkeypatch.setattr(Publisher, "_send", counted)
    assert await relay.run_once() == 301
    assert sends == [301, 1]


async def test_a_broker_that_is_too_slow_for_a_batch_gets_smaller_ones(
    pipeline: RelayPipeline, small_topic: str, slow: Callable[[float], None]
) -> None:
    """There isn't enough time to halve the batch down to single rows."""
    del small_topic
    relay, wallet = pipeline.new_relay(relay_delivery_timeout_seconds=1, relay_batch_rows=8), uuid4()
    await pipeline.write(wallet)
    # The first batch opens the connections.
    await relay.run_once()
    for _ in range(6):
        # Two such records don't fit into one batch.
        await pipeline.write(wallet, 1, f'"{token_hex(750)}"')
    slow(0.3)
    await timed_drain(relay, pipeline, 30)
    rows = await pipeline.rows()
    assert all(earlier["kafka_offset"] < later["kafka_offset"] for earlier, later in pairwise(rows))


def test_a_producer_is_replaced_when_its_secret_changes_and_only_then(
    relay_settings: RelaySettings, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    login = {
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "relay",
        "kafka_sasl_password": Secret(file=file),
    }
    publisher = Publisher(relay_settings.model_copy(update=login))
    first = publisher._producer
    publisher._replace_if_stale()
    assert publisher._producer is first
    file.unlink()
    publisher._replace_if_stale()
    assert publisher._producer is first, "a producer that works survives a file that can't be read now"
    file.write_text("second")
    publisher._replace_if_stale()
    assert publisher._producer is not first
    file.unlink()
    publisher.close()
    with pytest.raises(BrokerAwayError, match="KAFKA_SASL_PASSWORD_FILE"):
        publisher.ping()
