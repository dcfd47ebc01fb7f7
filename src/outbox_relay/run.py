"""The relay as a process."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from confluent_kafka import KafkaException

from common.database import create_engine
from common.http import ops_server
from common.kafka import admin_client, ensure_topic
from common.logs import configure_logs
from common.worker import FAILURE_PAUSES, Health, Pauses, pause, repeat, serve_until_stopped, stop_on_signals
from outbox_relay import metrics, retention
from outbox_relay.pace import Pace
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.retention import Ages, Retention
from outbox_relay.settings import RelaySettings
from outbox_relay.wake_up import WakeUp

log = structlog.get_logger()

HUNG_TRANSACTION_SECONDS = 15.0
"""PostgreSQL ends a relay's session that has idled in its transaction this long: a frozen relay's lanes are free."""


async def run(settings: RelaySettings) -> None:
    """Relay until SIGTERM or SIGINT: then the batches in flight are delivered and settled, and no other begun.

    Raises:
        RuntimeError: the ops port is taken.
    """
    configure_logs(settings, "outbox-relay")
    stop = asyncio.Event()
    stop_on_signals(stop)
    health = Health({"database": "not asked yet", "kafka": "not asked yet"})
    server = ops_server(health, settings.relay_ops_host, settings.relay_ops_port)
    await serve_until_stopped(server, relay_until(stop, settings, health))
    log.info("stopped")


async def relay_until(stop: asyncio.Event, settings: RelaySettings, health: Health) -> None:
    """Make the topic, then relay, and prune what is old, until `stop`."""
    if not await _prepare_topic(stop, settings, health):
        return
    engine = create_engine(
        settings.database_url,
        "outbox-relay",
        pool_size=settings.relay_tasks + 2,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        idle_in_transaction_timeout_seconds=HUNG_TRANSACTION_SECONDS,
        # Past all that a batch may take: claiming, publishing, settling.
        transaction_timeout_seconds=3 * HUNG_TRANSACTION_SECONDS + settings.relay_delivery_timeout_seconds,
    )
    idle = Pauses(settings.relay_poll_first_seconds, settings.relay_poll_longest_seconds)
    pace = Pace(settings.relay_gather_seconds, settings.relay_batch_rows)
    log.info("started", tasks=settings.relay_tasks, topic=settings.kafka_topic)
    wake_up = WakeUp(engine)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wake_up.run(stop))
            for _ in range(settings.relay_tasks):
                relay = Relay(settings, engine, Publisher(settings), health, pace)
                tasks.create_task(_repeat(relay.run_once, stop, idle, health, wake_up.pause))
            ages = Ages(settings.outbox_retention_days, settings.idempotency_retention_days)
            tasks.create_task(_repeat(Retention(engine, ages).run_once, stop, retention.PAUSES, health))
    finally:
        await engine.dispose()


async def _repeat(
    step: Callable[[], Awaitable[int]],
    stop: asyncio.Event,
    idle: Pauses,
    health: Health,
    pause_idle: Callable[[asyncio.Event, float], Awaitable[bool]] = pause,
) -> None:
    await repeat(
        step,
        stop=stop,
        idle=idle,
        health=health,
        on_failure=lambda dependency: metrics.failures.labels(dependency).inc(),
        pause_idle=pause_idle,
    )


async def _prepare_topic(stop: asyncio.Event, settings: RelaySettings, health: Health) -> bool:
    """Create the topic if it's missing and that is wanted, however long the broker takes to come up."""
    if not settings.kafka_topic_create:
        return not stop.is_set()
    config = {"retention.ms": str(settings.kafka_topic_retention_ms)}
    failures = 0
    while not stop.is_set():
        # A new client each time, for the reason that `describe_topic` has.
        admin = admin_client(settings.kafka_bootstrap_servers)
        try:
            created = await ensure_topic(admin, settings.kafka_topic, settings.kafka_topic_partitions, config)
        except KafkaException as error:
            failures += 1
            health.failed("kafka", error)
            metrics.failures.labels("kafka").inc()
            log.warning("topic_not_prepared", error=str(error), failures=failures)
            await pause(stop, FAILURE_PAUSES.after(failures))
            continue
        if created:
            log.info("topic_created", topic=settings.kafka_topic, partitions=settings.kafka_topic_partitions)
        health.ok("kafka")
        return True
    return False
