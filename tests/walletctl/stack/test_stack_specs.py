import sys
from pathlib import Path

import pytest

from walletctl.stack.readiness import HttpProbe
from walletctl.stack.specs import (
    STOP_ORDER,
    ProcessSpec,
    StackOptions,
    client_environment,
    port_names,
    process_specs,
)


def specs_of(**options: int) -> tuple[dict[str, ProcessSpec], dict[str, int]]:
    asked = StackOptions(Path("/nowhere"), env={"KAFKA_TOPIC": "another"}, **options)  # type: ignore[arg-type]
    ports = {name: 20_000 + number for number, name in enumerate(port_names(asked))}
    return {spec.name: spec for spec in process_specs(asked, ports)}, ports


def test_replicas_are_numbered_from_1() -> None:
    specs, ports = specs_of(relays=2, consumers=3)
    assert list(specs) == [
        "wallet-api",
        "outbox-relay-1",
        "outbox-relay-2",
        "history-consumer-1",
        "history-consumer-2",
        "history-consumer-3",
        "history-api",
    ]
    assert set(specs) < set(ports)


def test_no_two_processes_share_a_port() -> None:
    specs, ports = specs_of(relays=2, consumers=2)
    assert len(set(ports.values())) == len(ports)
    assert len({spec.url for spec in specs.values()}) == len(specs)


@pytest.mark.parametrize(
    ("name", "arguments", "variable"),
    [
        ("wallet-api", ["api", "serve"], "WALLET_API_PORT"),
        ("outbox-relay-1", ["relay", "run"], "RELAY_OPS_PORT"),
        ("history-consumer-1", ["consumer", "run"], "CONSUMER_OPS_PORT"),
        ("history-api", ["history", "serve"], "HISTORY_API_PORT"),
    ],
)
def test_a_service_is_this_walletctl_told_where_to_listen(name: str, arguments: list[str], variable: str) -> None:
    specs, ports = specs_of()
    start = specs[name].launch()
    assert list(start.command)[-6:] == [sys.executable, "-P", "-m", "walletctl", *arguments]
    assert start.env[variable] == str(ports[name])
    assert specs[name].probe == HttpProbe(f"http://127.0.0.1:{ports[name]}/ready")


def test_every_service_is_told_where_the_servers_are() -> None:
    specs, ports = specs_of(api_workers=2)
    url = f"postgresql://postgres@127.0.0.1:{ports['postgres']}/wallet"
    for spec in specs.values():
        env = spec.launch().env
        assert env["DATABASE_URL"] == env["HISTORY_DATABASE_URL"] == url
        assert env["KAFKA_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{ports['kafka']}"
        assert env["KAFKA_TOPIC"] == "another"
        assert env["LOG_FORMAT"] == "json"
    assert specs["wallet-api"].launch().env["WALLET_API_WORKERS"] == "2"


def test_variables_of_the_user_reach_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_BATCH_ROWS", "17")
    specs, _ = specs_of()
    assert specs["outbox-relay-1"].launch().environment()["RELAY_BATCH_ROWS"] == "17"


def test_every_role_has_its_place_in_the_order_of_stopping() -> None:
    specs, _ = specs_of()
    roles = [role for group in STOP_ORDER for role in group]
    assert sorted(roles) == sorted({spec.role for spec in specs.values()} | {"postgres", "kafka"})


def test_clients_are_told_four_addresses() -> None:
    _, ports = specs_of()
    assert client_environment(ports) == {
        "WALLET_API_URL": f"http://127.0.0.1:{ports['wallet-api']}",
        "HISTORY_API_URL": f"http://127.0.0.1:{ports['history-api']}",
        "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{ports['postgres']}/wallet",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{ports['kafka']}",
    }
