"""Structured logs: a constant event name and fields, one line each, to standard error."""

import io
import json
import logging
import os
import re
import sys
from time import monotonic
from typing import Any, Final, TextIO

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

from common.settings import LogSettings
from common.visible import visible

# What a request or a connection holds is nobody's business but the client's: no local variables in the log.
_tracebacks_without_locals = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


_REPETITION_SECONDS: Final = 5.0


class Rate:
    """Lets one of a kind through in five seconds, and counts what it doesn't."""

    _KINDS_MAX: Final = 1000

    def __init__(self) -> None:
        self._passed: dict[str, tuple[float, int]] = {}

    def suppressed(self, kind: str) -> int | None:
        """Return how many of the kind were held back since the last one passed; None holds this one back too."""
        now = monotonic()
        passed_at, count = self._passed.get(kind, (-_REPETITION_SECONDS, 0))
        if now - passed_at < _REPETITION_SECONDS:
            self._passed[kind] = (passed_at, count + 1)
            return None
        if len(self._passed) >= self._KINDS_MAX:
            self._passed.clear()
        self._passed[kind] = (now, 0)
        return count


class BoundedLog:
    """A logger for what each request may cause: one line in five seconds of each event and kind of error.

    The line's field `suppressed` says how many like it weren't written since the one before.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._rate = Rate()

    def warning(self, event: str, *, error: BaseException | None, **fields: object) -> None:
        """Write the line as a warning, if it is due."""
        if (count := self._rate.suppressed(f"{event} {type(error).__name__}")) is not None:
            self._log.warning(event, error=repr(error), suppressed=count, **fields)

    def defect(self, event: str, *, error: BaseException, **fields: object) -> None:
        """Write the line as an error, with the traceback, if it is due."""
        if (count := self._rate.suppressed(f"{event} {type(error).__name__}")) is not None:
            self._log.error(event, exc_info=error, suppressed=count, **fields)


class _Repetitions(logging.Filter):
    """Lets a line of a library through once in five seconds, its numbers aside: librdkafka while a broker is away."""

    def __init__(self, from_level: int = logging.NOTSET) -> None:
        super().__init__()
        self._from_level = from_level
        self._rate = Rate()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line hasn't just been there; note in it how many like it weren't let through."""
        if record.levelno < self._from_level:
            return True
        count = self._rate.suppressed(re.sub(r"[0-9]+", "0", record.getMessage()))
        if count:
            record.suppressed = count
        return count is not None


def _wants_colours(stream: TextIO) -> bool:
    """Whether to colour lines: on a terminal, unless NO_COLOR is set (no-color.org); with FORCE_COLOR anywhere."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def _visible_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # What isn't a string is shown by its repr, which has escapes for all of that.
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}


def _json(event: Any, **options: Any) -> str:
    # DEL is all that ASCII has of what a terminal obeys and JSON leaves as it is.
    return json.dumps(event, **options).replace("\x7f", "\\u007f")


def _visible_traceback(lines: TextIO, error: ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, error)
    lines.write(visible(written.getvalue()))


def configure_logs(settings: LogSettings, process: str) -> None:
    """Send structlog's and the standard library's records the same way; `process` goes into each line."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Processor] = (
        [_tracebacks_without_locals, structlog.processors.JSONRenderer(serializer=_json)]
        if settings.log_format == "json"
        else [
            _visible_values,
            structlog.dev.ConsoleRenderer(colors=_wants_colours(sys.stderr), exception_formatter=_visible_traceback),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    structlog.contextvars.bind_contextvars(process=process)
    logging.getLogger("librdkafka").filters = [_Repetitions()]
    # What each request may cause: broken HTTP, an exception that was answered.
    logging.getLogger("uvicorn.error").filters = [_Repetitions(logging.WARNING)]
    # Each request is counted in the metrics; a line for each would cost more than the request's SQL.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
