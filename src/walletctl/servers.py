"""Running an ASGI application with uvicorn."""

import os
import tempfile

import uvicorn


def serve(factory: str, host: str, port: int, *, workers: int = 1) -> None:
    """Serve the application that `factory` (`"module:function"`) makes, until SIGTERM or SIGINT.

    With more than one worker the metrics of all add up: each counts in a file of its own, in a directory
    that goes when the server ends.
    """

    def run() -> None:
        uvicorn.run(
            factory,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=10,
        )

    if workers == 1:
        run()
        return
    with tempfile.TemporaryDirectory(prefix="wallet-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        run()
