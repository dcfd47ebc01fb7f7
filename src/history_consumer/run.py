"""The history consumer as a process."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from common.http.probes import ops_server
from common.logs import configure_logs
from common.pauses import Pauses
from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import create_engine
from common.worker import Health, repeat, serve_until_stopped, stop_on_signals
from history_consumer import metrics, retention
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.monitor import Monitor
from history_consumer.retention import DeadLetterRetention
from history_consumer.settings import ConsumerSettings

_NO_PAUSE = Pauses(0, 0)
"""A poll waits for records itself."""
_HUNG_TRANSACTION_SECONDS = 30.0


async def run(settings: ConsumerSettings) -> None:
    """Consume until SIGTERM or SIGINT, beside `/live`, `/ready` and `/metrics` on the ops port."""
    configure_logs(settings, "history-consumer")
    stop = asyncio.Event()
    stop_on_signals(stop)
    health = Health({"database": "not asked yet", "kafka": "not asked yet"})
    server = ops_server(health, settings.consumer_ops_host, settings.consumer_ops_port, settings.metrics_token)
    await serve_until_stopped(server, consume(settings, stop, health))


async def consume(settings: ConsumerSettings, stop: asyncio.Event, health: Health) -> None:
    """Consume until `stop`: finish the step under way, then leave the group.

    Raises:
        ExceptionGroup: a step of the consumer, its monitor or its retention failed, and a retry would fail.
    """
    engine = create_engine(
        settings.history_database_url,
        "history-consumer",
        pool_size=3,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        # The consumer ends its transactions after the first of the two; PostgreSQL ends those that hang after both.
        transaction_timeout_seconds=settings.consumer_transaction_timeout_seconds + _HUNG_TRANSACTION_SECONDS,
    )
    tell_unsafe_settings(engine)
    consumer = HistoryConsumer(settings, engine, health)
    monitor = Monitor(consumer, engine, Target(settings.consumer_group, settings.kafka_topic), health)
    # Run in reverse order, and each even if another fails.
    async with AsyncExitStack() as at_end:
        at_end.push_async_callback(engine.dispose)
        at_end.push_async_callback(consumer.close)
        async with asyncio.TaskGroup() as tasks:
            seconds = settings.consumer_check_seconds
            background = [tasks.create_task(_repeat(monitor.run_once, stop, Pauses(seconds, seconds), health))]
            if settings.dead_letter_retention_days is not None:
                pruner = DeadLetterRetention(engine, settings.dead_letter_retention_days)
                background.append(tasks.create_task(_repeat(pruner.run_once, stop, retention.PAUSES, health)))
            await _repeat(consumer.run_once, stop, _NO_PAUSE, health)
            for task in background:
                task.cancel()


async def _repeat(step: Callable[[], Awaitable[int]], stop: asyncio.Event, idle: Pauses, health: Health) -> None:
    await repeat(step, stop=stop, idle=idle, health=health, on_failure=_count_failure)


def _count_failure(dependency: str) -> None:
    metrics.failures.labels(dependency).inc()
