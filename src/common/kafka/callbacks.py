"""What a Kafka client tells its process by callbacks, for as long as the process uses it."""

import logging
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError

_log: Final = logging.getLogger("librdkafka")
_FATAL: Final = "FATAL"
_FATAL_TEXT: Final = "Fatal error: "


class ClientCallbacks:
    """The callbacks of one client, which are silenced when the process stops using the client.

    A client may outlive its use by far: the end of a consumer waits for a broker that refuses its login. Until then
    the client goes on trying. What it says no longer concerns the process, which has another client or none.

    Args:
        on_error: takes each error that is not fatal.
        on_fatal_error: takes the fatal error, after which a producer is of no use.
    """

    def __init__(
        self, on_error: Callable[[KafkaError], None], on_fatal_error: Callable[[KafkaError], None] | None = None
    ) -> None:
        self.is_silenced = False
        self._on_error = on_error
        self._on_fatal_error = on_fatal_error

    def properties(self) -> dict[str, Any]:
        """Return the callbacks as properties of the client's configuration."""
        return {"error_cb": self.while_used(self._on_error), "logger": self}

    def while_used(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Return the callback that does nothing once the client is silenced."""

        def call(*arguments: Any) -> None:
            if not self.is_silenced:
                callback(*arguments)

        return call

    def silence(self) -> None:
        """Drop all that the client says from now on."""
        self.is_silenced = True

    def log(self, level: int, form: str, facility: str, client: str, line: str) -> None:
        """Take a log line of the client, as `logging.Logger.log` does.

        confluent-kafka raises a fatal error from the call that serves the callbacks. A callback that runs after it in
        the same call may clear it. The client logs the error before (rd_kafka_set_fatal_error0), so it is taken there.
        """
        if self.is_silenced:
            return
        _log.log(level, form, facility, client, line)
        if facility == _FATAL and self._on_fatal_error is not None:
            text = line.partition(_FATAL_TEXT)[2] or line
            self._on_fatal_error(KafkaError(KafkaError._FATAL, text, fatal=True))  # noqa: SLF001 - a public name
