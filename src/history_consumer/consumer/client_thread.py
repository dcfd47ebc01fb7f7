"""The one thread that calls a Kafka client, since its calls block."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from confluent_kafka import KafkaException

log = structlog.get_logger()

ResultT = TypeVar("ResultT")


class ClientThread:
    """Runs calls one after the other, each with the caller's context, which has the log's fields."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "kafka-consumer")

    async def run(self, call: Callable[[], ResultT]) -> ResultT:
        """Run the call, and return its result."""
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._executor, run, call)

    async def close(self, close_client: Callable[[], None], wait_seconds: float) -> None:
        """End the thread, then close the client; return after `wait_seconds` even if that hangs."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def close() -> None:
            try:
                self._executor.shutdown()
                close_client()
            except KafkaException as error:
                log.warning("group_not_left", error=str(error))
            finally:
                loop.call_soon_threadsafe(closed.set)

        # A daemon thread: a close that hangs must not keep the process alive.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(close,), name="kafka-consumer-close", daemon=True).start()
        try:
            await asyncio.wait_for(closed.wait(), wait_seconds)
        except TimeoutError:
            log.warning("group_not_left_in_time", wait_seconds=wait_seconds)
