"""The relay as a process."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.http.probes import ops_server
from common.logs import configure_logs
from common.pauses import Pauses, pause
from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import create_engine
from common.worker import Health, repeat, serve_until_stopped, stop_on_signals
from outbox_relay import metrics, numbering, retention, topic
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.numbering import Numbering
from outbox_relay.outbox_listener import OutboxListener
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.retention import OutboxRetention, RetentionAges
from outbox_relay.settings import RelaySettings
from outbox_relay.topic import TopicMonitor, prepare_topic

log = structlog.get_logger()

HUNG_TRANSACTION_SECONDS = 15.0
"""PostgreSQL ends a relay's session that idles in its transaction for so long: that frees a frozen relay's lanes."""


async def run(settings: RelaySettings) -> None:
    """Relay until SIGTERM or SIGINT. Then the batches in flight are delivered and settled, and no other begins.

    Raises:
        RuntimeError: the ops port is in use.
    """
    configure_logs(settings, "outbox-relay")
    stop = asyncio.Event()
    stop_on_signals(stop)
    health = Health({"database": "not asked yet", "kafka": "not asked yet"})
    server = ops_server(health, settings.relay_ops_host, settings.relay_ops_port, settings.metrics_token)
    await serve_until_stopped(server, relay_until(stop, settings, health))
    log.info("stopped")


async def relay_until(stop: asyncio.Event, settings: RelaySettings, health: Health) -> None:
    """Prepare the topic; then relay and prune until `stop`."""
    if not await prepare_topic(stop, settings, health):
        return
    engine = _create_engine(settings)
    tell_unsafe_settings(engine)
    idle = Pauses(settings.relay_poll_first_seconds, settings.relay_poll_longest_seconds)
    batching = AdaptiveBatching(settings.relay_gather_seconds, settings.relay_batch_rows)
    log.info("started", tasks=settings.relay_tasks, topic=settings.kafka_topic)
    listener = OutboxListener(engine)
    publishers = [Publisher(settings) for _ in range(settings.relay_tasks)]
    try:
        # A task that fails with an unexpected error cancels the other tasks and ends the process.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.run(stop))
            for publisher in publishers:
                relay = Relay(settings, engine, publisher, health, batching)
                tasks.create_task(_repeat(relay.run_once, stop, idle, health, listener.pause))
            monitor = TopicMonitor(settings, health, publishers)
            tasks.create_task(_repeat(monitor.run_once, stop, topic.CHECK_PAUSES, health))
            tasks.create_task(_repeat(Numbering(engine, health).run_once, stop, numbering.CHECK_PAUSES, health))
            ages = RetentionAges(settings.outbox_retention_days, settings.idempotency_retention_days)
            tasks.create_task(_repeat(OutboxRetention(engine, ages).run_once, stop, retention.PAUSES, health))
    finally:
        closing = [asyncio.to_thread(publisher.close) for publisher in publishers]
        ended = await asyncio.gather(*closing, engine.dispose(), return_exceptions=True)
        log.info("closed", errors=[repr(error) for error in ended if error is not None])


def _create_engine(settings: RelaySettings) -> AsyncEngine:
    return create_engine(
        settings.database_url,
        "outbox-relay",
        # A connection for each task, and for the listener, the pruner and the numbering.
        pool_size=settings.relay_tasks + 3,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        idle_in_transaction_timeout_seconds=HUNG_TRANSACTION_SECONDS,
        # Longer than claiming, publishing and settling may take together.
        transaction_timeout_seconds=3 * HUNG_TRANSACTION_SECONDS + settings.relay_delivery_timeout_seconds,
    )


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
