"""Structured logs: a constant event name and fields, one line each, to standard error."""

import io
import json
import logging
import os
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from common.rate_limited_logs import RateLimiter
from common.settings import LogSettings
from common.visible import visible

# What a request or a connection holds is nobody's business but the client's: no local variables in the log.
_tracebacks_without_locals = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class _RepetitionFilter(logging.Filter):
    """Lets a line of a library through once in five seconds, its numbers aside: librdkafka while a broker is away."""

    def __init__(self, from_level: int = logging.NOTSET) -> None:
        super().__init__()
        self._from_level = from_level
        self._limiter = RateLimiter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line hasn't just been there; note in it how many like it weren't let through."""
        if record.levelno < self._from_level:
            return True
        count = self._limiter.admit(re.sub(r"[0-9]+", "0", record.getMessage()))
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
    logging.getLogger("librdkafka").filters = [_RepetitionFilter()]
    # What each request may cause: broken HTTP, an exception that was answered.
    logging.getLogger("uvicorn.error").filters = [_RepetitionFilter(logging.WARNING)]
    # Each request is counted in the metrics; a line for each would cost more than the request's SQL.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
