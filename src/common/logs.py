"""Structured logs on standard error: each line has a constant event name and fields."""

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

# Local variables stay out of the log: those of a request are the client's private data.
_tracebacks_without_locals = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class _RepetitionFilter(logging.Filter):
    """Admits a library's line once in five seconds. Lines that differ in numbers only count as the same line."""

    def __init__(self, from_level: int = logging.NOTSET) -> None:
        super().__init__()
        self._from_level = from_level
        self._limiter = RateLimiter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is admitted, and set its field `suppressed` to how many were left out."""
        if record.levelno < self._from_level:
            return True
        count = self._limiter.admit(re.sub(r"[0-9]+", "0", record.getMessage()))
        if count:
            record.suppressed = count
        return count is not None


def _wants_colours(stream: TextIO) -> bool:
    """Whether to colour lines: on a terminal or with FORCE_COLOR, but not with NO_COLOR (no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def _visible_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # Other values are shown by their repr, which escapes control characters.
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}


def _json(event: Any, **options: Any) -> str:
    # DEL is the only ASCII control character that JSON doesn't escape.
    return json.dumps(event, **options).replace("\x7f", "\\u007f")


def _visible_traceback(lines: TextIO, error: ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, error)
    lines.write(visible(written.getvalue()))


def configure_logs(settings: LogSettings, process: str) -> None:
    """Configure structlog and the standard library's logging alike; each line gets the field `process`."""
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
    # Each request may cause such a line: malformed HTTP, or an exception that was answered 500.
    logging.getLogger("uvicorn.error").filters = [_RepetitionFilter(logging.WARNING)]
    # The client that reads keys logs each request with its URL. `jwt_key_reads_total` counts them.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    # Metrics count the requests. A log line for each would cost more than the request's SQL.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
