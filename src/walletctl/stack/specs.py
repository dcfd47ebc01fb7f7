"""Which processes a stack has, with what settings: a pure function of the options and the ports."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGTERM, Signals

from walletctl.stack.environment import service_environment
from walletctl.stack.launch import Launch, launch
from walletctl.stack.ports import HOST
from walletctl.stack.readiness import Probe, probe_of

REPLICAS_MAX = 64

PORT_NAMES = ("postgres", "kafka", "kafka-controller", "wallet-api", "history-api")

STOP_ORDER = ("wallet-api", "history-api"), ("outbox-relay",), ("history-consumer",), ("kafka",), ("postgres",)
"""Roles, group by group: what takes requests first, what others need last."""


@dataclass(frozen=True)
class StackOptions:
    """What `stack up` was asked for.

    Attributes:
        data_dir: where data, logs and state are kept; names the stack.
        relays: how many outbox relays.
        consumers: how many history consumers.
        api_workers: worker processes of wallet-api.
        ephemeral: delete the data before the start and after the stop.
        postgres_settings: postgresql.conf settings on top of the usual ones.
        env: environment of the four services on top of the stack's.
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
        role: what it does: `outbox-relay` for `outbox-relay-1` and its like.
        name: unique in the stack.
        launch: returns how to start it, asked anew at every start.
        probe: tells when it is ready.
        url: where it answers.
        stop_signal: what asks it to stop.
    """

    role: str
    name: str
    launch: Callable[[], Launch]
    probe: Probe
    url: str
    stop_signal: Signals = SIGTERM


def port_names(options: StackOptions) -> list[str]:
    """Return the names of all the ports that the stack listens on."""
    return [*PORT_NAMES, *_replicas("outbox-relay", options.relays), *_consumers(options)]


def log_file(data_dir: Path, name: str) -> Path:
    """Return where the process of that name writes its log."""
    return data_dir / "logs" / f"{name}.log"


def shared_environment(ports: Mapping[str, int]) -> dict[str, str]:
    """Return what the services and the migrations are given: the caller's settings, and where the servers are."""
    database_url = f"postgresql://postgres@{HOST}:{ports['postgres']}/wallet"
    return {
        **service_environment(),
        "DATABASE_URL": database_url,
        "HISTORY_DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{ports['kafka']}",
        "LOG_FORMAT": "json",
    }


def client_environment(ports: Mapping[str, int]) -> dict[str, str]:
    """Return what `stack env` prints: where a client of the stack finds everything."""
    servers = shared_environment(ports)
    return {
        "WALLET_API_URL": f"http://{HOST}:{ports['wallet-api']}",
        "HISTORY_API_URL": f"http://{HOST}:{ports['history-api']}",
        "DATABASE_URL": servers["DATABASE_URL"],
        "KAFKA_BOOTSTRAP_SERVERS": servers["KAFKA_BOOTSTRAP_SERVERS"],
    }


def walletctl(*arguments: str) -> list[str]:
    """Return the command that runs this very walletctl; what lies in the working directory isn't imported."""
    return [sys.executable, "-P", "-m", "walletctl", *arguments]


def process_specs(options: StackOptions, ports: Mapping[str, int]) -> list[ProcessSpec]:
    """Return the services of the stack, in the order of their start."""

    def service(role: str, name: str, arguments: str, **own: str) -> ProcessSpec:
        url = f"http://{HOST}:{ports[name]}"
        env = {**shared_environment(ports), **own, **options.env}
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
