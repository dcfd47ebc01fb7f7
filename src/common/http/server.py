"""The options of all HTTP servers: those of the APIs and the workers' ops servers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from common.http.connections import ConnectionBounds, Connections, backlog_within, connections_within, descriptors_max
from common.http.protocol import HttpProtocol


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
