"""Single servers for tests and benchmarks: blocking context managers around PostgreSQL and Kafka."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from walletctl.stack.errors import StackError
from walletctl.stack.kafka import Kafka
from walletctl.stack.launch import Launch, open_log, spawn
from walletctl.stack.ports import HOST, PortReservations
from walletctl.stack.postgres import Postgres
from walletctl.stack.readiness import KafkaProbe, PostgresProbe, Probe

READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 15.0
PAUSE_SECONDS = 0.02


@contextmanager
def postgres_server(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a PostgreSQL with its data in `directory`/postgres, on a free port, for the duration of the block.

    Call it in a thread that outlives the block: the server stops when that thread ends.

    Args:
        directory: created if it is missing; the data of an earlier run is used again.
        settings: postgresql.conf settings, such as `{"fsync": "off"}` for tests.

    Yields:
        The URL `postgresql://postgres@127.0.0.1:PORT/wallet`.

    Raises:
        StackError: the server did not start.
    """
    log_file = directory.resolve() / "logs" / "postgres.log"
    with reserved("test-postgres") as (port,):
        server = Postgres(directory.resolve() / "postgres", port, log_file, settings or {})
        server.prepare()
        with running(server.launch(), log_file, PostgresProbe(server.url), server.stop_signal):
            yield server.url


@contextmanager
def kafka_server(directory: Path, advertised: str | None = None) -> Iterator[str]:
    """Run a Kafka broker with its data in `directory`/kafka, on free ports, for the duration of the block.

    Call it in a thread that outlives the block: the broker stops when that thread ends.

    Args:
        directory: created if it is missing; the data of an earlier run is used again.
        advertised: the `host:port` that clients are told instead of the broker's own.

    Yields:
        The `bootstrap.servers` of the broker.

    Raises:
        StackError: the server did not start.
    """
    log_file = directory.resolve() / "logs" / "kafka.log"
    with reserved("test-kafka", "test-kafka-controller") as (port, controller_port):
        broker = Kafka(directory.resolve() / "kafka", port, controller_port, log_file, advertised)
        broker.prepare()
        with running(broker.launch(), log_file, KafkaProbe(HOST, port), broker.stop_signal):
            yield broker.bootstrap_servers


@contextmanager
def reserved(*names: str) -> Iterator[list[int]]:
    """Reserve a free port for each name, for the duration of the block."""
    reservations = PortReservations()
    try:
        yield list(reservations.choose(names, {}).values())
    finally:
        reservations.close()


@contextmanager
def running(
    start: Launch, log_file: Path, probe: Probe, stop_signal: signal.Signals
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process for the duration of the block: ready when it begins, ended when it ends.

    Call it in a thread that outlives the block: the process is told to stop when that thread ends.

    Raises:
        StackError: the server did not start.
    """
    with open_log(log_file) as log:
        process = spawn(start, log)
    try:
        _wait_until_ready(process, probe, log_file)
        yield process
    finally:
        _stop(process, stop_signal)


def _wait_until_ready(process: "subprocess.Popen[bytes]", probe: Probe, log_file: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    # In a thread, because the caller's may run an event loop.
    with ThreadPoolExecutor(1) as thread:
        while (problem := thread.submit(asyncio.run, probe.problem()).result()) is not None:
            if process.poll() is not None:
                raise StackError(f"{log_file.stem} ended at its start: see {log_file}", log_file)
            if time.monotonic() > deadline:
                late = f"was not ready within {READY_SECONDS_MAX:.0f} s ({problem})"
                raise StackError(f"{log_file.stem} {late}: see {log_file}", log_file)
            time.sleep(PAUSE_SECONDS)


def _stop(process: "subprocess.Popen[bytes]", stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
