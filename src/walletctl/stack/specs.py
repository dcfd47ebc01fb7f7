"""The processes of a stack, with their settings: a pure function of the options, the ports and the logins."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Final

from common.tables.roles import Role
from walletctl.stack.environment import service_environment
from walletctl.stack.launch import Launch, launch
from walletctl.stack.logins import Logins
from walletctl.stack.ports import HOST
from walletctl.stack.readiness import Probe, probe_of

PORT_NAMES = ("postgres", "kafka", "kafka-controller", "wallet-api", "history-api")

STOP_ORDER = ("wallet-api", "history-api"), ("outbox-relay",), ("history-consumer",), ("kafka",), ("postgres",)
"""Groups of roles: those that take requests stop first, those that other processes need stop last."""


@dataclass(frozen=True)
class StackOptions:
    """The options of `stack up`.

    Attributes:
        data_dir: the directory of data, logs and state; it identifies the stack.
        relays: the number of outbox relays.
        consumers: the number of history consumers.
        api_workers: the number of wallet-api's worker processes.
        ephemeral: delete the data before the start and after the end.
        postgres_settings: postgresql.conf settings on top of the stack's.
        env: variables of the four services on top of the stack's.
    """

    data_dir: Path
    relays: int = 1
    consumers: int = 1
    api_workers: int = 1
    ephemeral: bool = False
    postgres_settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running.

    Attributes:
        role: its kind: `outbox-relay` for `outbox-relay-1` and so on.
        name: unique in the stack.
        launch: returns how to start it; called at every start.
        probe: tells when it is ready.
        url: the address at which it answers.
        stop_signal: the signal that asks it to stop.
    """

    role: str
    name: str
    launch: Callable[[], Launch]
    probe: Probe
    url: str
    stop_signal: Signals = SIGTERM


def port_names(options: StackOptions) -> list[str]:
    """Return the names of all ports of the stack."""
    return [*PORT_NAMES, *_replicas("outbox-relay", options.relays), *_consumers(options)]


def log_file(data_dir: Path, name: str) -> Path:
    """Return the log of the process with this name."""
    return data_dir / "logs" / f"{name}.log"


def shared_environment(ports: Mapping[str, int], database_url: str) -> dict[str, str]:
    """Return the variables of the services and commands: the caller's settings and the servers' addresses."""
    return {
        **service_environment(),
        "DATABASE_URL": database_url,
        "HISTORY_DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{ports['kafka']}",
        "LOG_FORMAT": "json",
    }


def client_environment(ports: Mapping[str, int], logins: Logins) -> dict[str, str]:
    """Return the variables that `stack env` prints: the addresses for a client of the stack, who is its operator."""
    servers = shared_environment(ports, logins.url(Role.OPERATOR))
    return {
        "WALLET_API_URL": f"http://{HOST}:{ports['wallet-api']}",
        "HISTORY_API_URL": f"http://{HOST}:{ports['history-api']}",
        "DATABASE_URL": servers["DATABASE_URL"],
        "DATABASE_SUPERUSER_URL": logins.superuser_url,
        "KAFKA_BOOTSTRAP_SERVERS": servers["KAFKA_BOOTSTRAP_SERVERS"],
    }


def walletctl(*arguments: str) -> list[str]:
    """Return the command that runs this very walletctl. It imports nothing from the working directory."""
    return [sys.executable, "-P", "-m", "walletctl", *arguments]


DATABASE_ROLES: Final = {
    "wallet-api": Role.API,
    "outbox-relay": Role.RELAY,
    "history-consumer": Role.CONSUMER,
    "history-api": Role.READER,
}
"""The role as which each service logs in to PostgreSQL."""


def process_specs(options: StackOptions, ports: Mapping[str, int], logins: Logins) -> list[ProcessSpec]:
    """Return the services of the stack, in the order in which they start."""

    def service(role: str, name: str, arguments: str, **own: str) -> ProcessSpec:
        url = f"http://{HOST}:{ports[name]}"
        env = {**shared_environment(ports, logins.url(DATABASE_ROLES[role])), **own, **options.env}
        start = partial(launch, walletctl(*arguments.split()), on_parent_death=SIGTERM, env=env)
        return ProcessSpec(role, name, start, probe_of(url), url)

    def port(name: str) -> str:
        return str(ports[name])

    return [
        service(
            "wallet-api",
            "wallet-api",
            "api serve",
            WALLET_API_HOST=HOST,
            WALLET_API_PORT=port("wallet-api"),
            WALLET_API_WORKERS=str(options.api_workers),
        ),
        *(
            service("outbox-relay", name, "relay run", RELAY_OPS_HOST=HOST, RELAY_OPS_PORT=port(name))
            for name in _replicas("outbox-relay", options.relays)
        ),
        *(
            service("history-consumer", name, "consumer run", CONSUMER_OPS_HOST=HOST, CONSUMER_OPS_PORT=port(name))
            for name in _consumers(options)
        ),
        service(
            "history-api",
            "history-api",
            "history serve",
            HISTORY_API_HOST=HOST,
            HISTORY_API_PORT=port("history-api"),
        ),
    ]


def _replicas(role: str, count: int) -> list[str]:
    return [f"{role}-{number}" for number in range(1, count + 1)]


def _consumers(options: StackOptions) -> list[str]:
    return _replicas("history-consumer", options.consumers)
