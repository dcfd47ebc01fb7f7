"""Log lines that each request may cause, limited to one of a kind in five seconds."""

from time import monotonic
from typing import Final

from structlog.typing import FilteringBoundLogger

_INTERVAL_SECONDS: Final = 5.0


class RateLimiter:
    """Admits one event of a kind in five seconds, and counts the suppressed ones."""

    _KINDS_MAX: Final = 1000

    def __init__(self) -> None:
        self._admitted: dict[str, tuple[float, int]] = {}

    def admit(self, kind: str) -> int | None:
        """Return how many of the kind were suppressed since the last admitted one, or None to suppress this one too."""
        now = monotonic()
        admitted_at, count = self._admitted.get(kind, (-_INTERVAL_SECONDS, 0))
        if now - admitted_at < _INTERVAL_SECONDS:
            self._admitted[kind] = (admitted_at, count + 1)
            return None
        if len(self._admitted) >= self._KINDS_MAX:
            self._admitted.clear()
        self._admitted[kind] = (now, 0)
        return count


class RateLimitedLog:
    """A logger that writes one line in five seconds for each event and class of error.

    The field `suppressed` says how many such lines were left out since the previous one.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._limiter = RateLimiter()

    def warning(self, event: str, *, error: BaseException | None, **fields: object) -> None:
        """Write the line as a warning, unless it is suppressed."""
        if (count := self._limiter.admit(f"{event} {type(error).__name__}")) is not None:
            self._log.warning(event, error=repr(error), suppressed=count, **fields)

    def defect(self, event: str, *, error: BaseException, **fields: object) -> None:
        """Write the line as an error with the traceback, unless it is suppressed."""
        if (count := self._limiter.admit(f"{event} {type(error).__name__}")) is not None:
            self._log.error(event, exc_info=error, suppressed=count, **fields)
