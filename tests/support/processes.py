"""The four processes of the pipeline, as tests start them, end them and start them again."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from common.tables.roles import Role
from support.api_keys import KEY, bearer
from support.ports import free_port
from support.roles import Roles
from support.servers import READY_SECONDS_MAX
from walletctl.stack.readiness import HttpProbe
from walletctl.stack.specs import DATABASE_ROLES

COMMANDS = {
    "wallet-api": ("api", "serve"),
    "outbox-relay": ("relay", "run"),
    "history-consumer": ("consumer", "run"),
    "history-api": ("history", "serve"),
}


# The processes speak plain HTTP; loading certificates would take 25 ms of processor time for each client.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(url: str, *, api_key: str = KEY, **options: Any) -> httpx.AsyncClient:
    """Return a client of a process, which sends an API key; the options are httpx's."""
    headers = bearer(api_key)
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=_NO_CERTIFICATES, **options)


@dataclass
class Process:
    """One process of the pipeline, which can be killed and started again."""

    name: str
    environment: dict[str, str]
    log_file: Path
    url: str
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.child is not None and self.child.poll() is None

    def start(self, **environment: str) -> None:
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "walletctl", *COMMANDS[self.name]],
                env={**os.environ, **self.environment, **environment},
                stdout=log,
                stderr=log,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.child is not None
        self.child.send_signal(how)
        return self.child.wait(20)


@dataclass
class Pipeline:
    """The processes that run, each as its role, and clients of their HTTP servers."""

    environment: dict[str, str]
    """Its DATABASE_URL is the superuser's, for what the tests arrange and check."""
    roles: Roles
    directory: Path
    eventually: Callable[..., Awaitable[Any]]
    processes: list[Process] = field(default_factory=list)
    api_key: str = KEY

    def environment_of(self, role: Role) -> dict[str, str]:
        """Return the environment of a process or a command that logs in as that role."""
        return {**self.environment, "DATABASE_URL": self.roles.url(self.environment["DATABASE_URL"], role)}

    async def add(self, name: str, **environment: str) -> Process:
        """Start one more process and wait until it is ready."""
        process = self.make(name, **environment)
        process.start()
        await self.ready(process)
        return process

    def make(self, name: str, **environment: str) -> Process:
        """Return one more process. The caller starts it."""
        port = free_port()
        ports = {
            "WALLET_API_PORT": str(port),
            "HISTORY_API_PORT": str(port),
            "RELAY_OPS_PORT": str(port),
            "CONSUMER_OPS_PORT": str(port),
        }
        process = Process(
            name,
            {**self.environment_of(DATABASE_ROLES[name]), **ports, **environment},
            self.directory / f"{name}-{len(self.processes)}.log",
            f"http://127.0.0.1:{port}",
        )
        self.processes.append(process)
        return process

    async def ready(self, process: Process) -> None:
        """Wait until the process says that it is ready."""
        probe = HttpProbe(f"{process.url}/ready")

        async def answers() -> bool:
            assert process.child is not None
            assert process.child.poll() is None, process.log_file.read_text()
            return await probe.ready()

        await self.eventually(answers, READY_SECONDS_MAX)

    def of(self, name: str) -> list[Process]:
        return [process for process in self.processes if process.name == name]

    def client(self, name: str) -> httpx.AsyncClient:
        return http_client(self.of(name)[0].url, api_key=self.api_key, timeout=20)
