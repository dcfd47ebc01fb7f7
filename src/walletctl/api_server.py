"""Running an ASGI application with uvicorn."""

import os
import tempfile

import uvicorn

from common.http.connections import ConnectionBounds
from common.http.server import server_options
from common.settings import ApiSettings


def serve(
    factory: str, host: str, port: int, settings: ApiSettings, *, workers: int = 1, descriptors_kept: int = 0
) -> None:
    """Serve the application that `factory` (`"module:function"`) makes, until SIGTERM or SIGINT.

    With more than one worker the metrics of all add up: each counts in a file of its own, in a directory
    that goes when the server ends. A process keeps `descriptors_kept` open files for its connections to the database.
    """
    bounds = ConnectionBounds(
        settings.connections_max,
        settings.head_deadline_seconds,
        settings.body_deadline_seconds,
        settings.reply_stall_seconds,
    )
    options = server_options(bounds, descriptors_kept=descriptors_kept)

    def run() -> None:
        uvicorn.run(
            factory,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            loop="uvloop",
            timeout_graceful_shutdown=10,
            **options,
        )

    if workers == 1:
        run()
        return
    with tempfile.TemporaryDirectory(prefix="wallet-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        run()
