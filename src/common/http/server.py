"""How every HTTP server here is run: those of the APIs and the workers' ops servers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from common.http.connections import ConnectionBounds, Connections, backlog_within, connections_within, descriptors_max
from common.http.protocol import HttpProtocol


def server_options(bounds: ConnectionBounds, *, descriptors_kept: int = 0) -> dict[str, Any]:
    """Return uvicorn's options that all servers share; they can be pickled for worker processes.

    Args:
        bounds: of the connections; there are fewer of them where RLIMIT_NOFILE leaves no more.
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
    """A server inside a worker's own event loop, which leaves the signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the worker handles the signals."""
        yield


def background_server(app: ASGIApp, host: str, port: int, bounds: ConnectionBounds | None = None) -> BackgroundServer:
    """Return a server of `app` for a loop that runs; without `bounds`, as an ops server has them."""
    options = server_options(bounds or ConnectionBounds())
    return BackgroundServer(uvicorn.Config(app, host=host, port=port, lifespan="off", **options))
