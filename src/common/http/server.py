"""The options of all HTTP servers: those of the APIs and the workers' ops servers."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from common.http.connections import ConnectionBounds, Connections, backlog_within, connections_within, descriptors_max
from common.http.protocol import HttpProtocol
from common.http.security_headers import security_headers
from common.http.settings import HttpApiSettings, items_of

DRAIN_SECONDS: Final = 10
"""How long an API's requests under way may take after SIGTERM."""


def server_options(bounds: ConnectionBounds, *, descriptors_kept: int = 0) -> dict[str, Any]:
    """Return the options of uvicorn that all servers share. They can be pickled for worker processes.

    Args:
        bounds: of the connections. RLIMIT_NOFILE may allow fewer connections.
        descriptors_kept: open files that the process needs for its own connections.

    Raises:
        OSError: RLIMIT_NOFILE is too low.
    """
    files_max = descriptors_max()
    connections_max = connections_within(files_max, bounds.connections_max, descriptors_kept)
    fitting = ConnectionBounds(**{**vars(bounds), "connections_max": connections_max})
    return {
        "http": partial(HttpProtocol, connections=Connections(fitting)),
        "ws": "none",
        "backlog": backlog_within(files_max),
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "headers": security_headers(None),
        "proxy_headers": False,
    }


class BackgroundServer(uvicorn.Server):
    """A server in a worker's event loop. The worker handles the signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signal."""
        yield


def background_server(app: ASGIApp, host: str, port: int, bounds: ConnectionBounds | None = None) -> BackgroundServer:
    """Return a server of `app` for a running event loop; the default `bounds` are those of an ops server."""
    options = server_options(bounds or ConnectionBounds())
    return BackgroundServer(uvicorn.Config(app, host=host, port=port, lifespan="off", **options))


def api_server_options(settings: HttpApiSettings, *, descriptors_kept: int = 0) -> dict[str, Any]:
    """Return the options of uvicorn for an API: those of all servers, its trusted proxies and its security headers.

    Args:
        settings: the bounds of connections, the trusted proxies, and whether TLS ends in front of it.
        descriptors_kept: open files that each process needs for its database connections.

    Raises:
        OSError: RLIMIT_NOFILE is too low.
    """
    bounds = ConnectionBounds(
        settings.connections_max,
        settings.head_deadline_seconds,
        settings.body_deadline_seconds,
        settings.reply_stall_seconds,
    )
    proxies = items_of(settings.forwarded_allow_ips)
    return {
        **server_options(bounds, descriptors_kept=descriptors_kept),
        "headers": security_headers(settings.strict_transport_security_seconds),
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": proxies,
    }


def serve(
    factory: str, host: str, port: int, settings: HttpApiSettings, *, workers: int = 1, descriptors_kept: int = 0
) -> None:
    """Serve the application that `factory` (`"module:function"`) makes, until SIGTERM or SIGINT.

    After SIGTERM the process exits with 0, as a worker does.

    Args:
        factory: imported in each worker process.
        host: the address to listen on.
        port: the port to listen on.
        settings: those of `api_server_options`.
        workers: processes. `/metrics` of each adds up the metrics of all, which they write to a temporary directory.
        descriptors_kept: open files that each process needs for its database connections.

    Raises:
        OSError: RLIMIT_NOFILE is too low.
    """
    # uvicorn repeats the SIGTERM after its shutdown: then the process has done all that it was told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = api_server_options(settings, descriptors_kept=descriptors_kept)
    options |= {
        "host": host,
        "port": port,
        "workers": workers,
        "loop": "uvloop",
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    if workers == 1:
        uvicorn.run(factory, factory=True, **options)
        return
    with tempfile.TemporaryDirectory(prefix="wallet-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        uvicorn.run(factory, factory=True, **options)
