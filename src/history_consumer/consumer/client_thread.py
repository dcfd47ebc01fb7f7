"""The one thread that calls a Kafka client, since its calls block."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        """End the thread, then close the client; return after `wait_seconds` even if that hangs.

        A client that is closed later, or fails to, is not reported any more.
        """
        closed: Future[None] = Future()
        # From here on it can't be cancelled: the thread may set its result at any time.
        closed.set_running_or_notify_cancel()

        def close() -> None:
            try:
                self._executor.shutdown()
                close_client()
            except KafkaException as error:
                closed.set_exception(error)
            else:
                closed.set_result(None)

        # A daemon thread: a close that hangs must not keep the process alive.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(close,), name="kafka-consumer-close", daemon=True).start()
        try:
            await asyncio.wait_for(asyncio.wrap_future(closed), wait_seconds)
        except TimeoutError:
            log.warning("group_not_left_in_time", wait_seconds=wait_seconds)
        except KafkaException as error:
            log.warning("group_not_left", error=str(error))
