import sys
from pathlib import Path

import pytest

from common.tables.roles import Role
from walletctl.stack.environment import download_environment
from walletctl.stack.logins import Logins
from walletctl.stack.postgres import Postgres
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
    return {spec.name: spec for spec in process_specs(asked, ports, logins_of(ports))}, ports


def logins_of(ports: dict[str, int]) -> Logins:
    return Logins(
        Postgres(Path("/nowhere"), ports["postgres"], Path("/nowhere")), {role: f"of-{role}" for role in Role}
    )


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
def test_a_service_runs_this_walletctl_with_its_address(name: str, arguments: list[str], variable: str) -> None:
    specs, ports = specs_of()
    start = specs[name].launch()
    assert list(start.command)[-6:] == [sys.executable, "-P", "-m", "walletctl", *arguments]
    assert start.env[variable] == str(ports[name])
    assert specs[name].probe == HttpProbe(f"http://127.0.0.1:{ports[name]}/ready")


def test_every_service_is_told_where_the_servers_are() -> None:
    specs, ports = specs_of(api_workers=2)
    for spec in specs.values():
        env = spec.launch().env
        assert env["DATABASE_URL"].endswith(f"@127.0.0.1:{ports['postgres']}/wallet")
        assert env["DATABASE_URL"] == env["HISTORY_DATABASE_URL"]
        assert env["KAFKA_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{ports['kafka']}"
        assert env["KAFKA_TOPIC"] == "another"
        assert env["LOG_FORMAT"] == "json"
    assert specs["wallet-api"].launch().env["WALLET_API_WORKERS"] == "2"


def test_every_service_logs_in_as_its_own_role() -> None:
    specs, _ = specs_of()
    urls = {name: spec.launch().env["DATABASE_URL"].rpartition("@")[0] for name, spec in specs.items()}
    assert urls == {
        "wallet-api": "postgresql://wallet_api:of-wallet_api",
        "outbox-relay-1": "postgresql://outbox_relay:of-outbox_relay",
        "history-consumer-1": "postgresql://history_consumer:of-history_consumer",
        "history-api": "postgresql://history_reader:of-history_reader",
    }
    assert not any("of-" in word for spec in specs.values() for word in spec.launch().command)


def test_variables_of_the_user_reach_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_BATCH_ROWS", "17")
    monkeypatch.setenv("log_level", "debug")
    monkeypatch.setenv("relay_ops_host", "192.0.2.1")
    monkeypatch.setenv("FAILPOINTS", "relay.claimed=stop")
    specs, _ = specs_of()
    environment = specs["outbox-relay-1"].launch().environment()
    assert environment["RELAY_BATCH_ROWS"] == "17"
    assert environment["LOG_LEVEL"] == "debug"
    assert environment["RELAY_OPS_HOST"] == "127.0.0.1"
    assert environment["FAILPOINTS"] == "relay.claimed=stop"


STRANGE = {
    "DATABASE_URL": "postgresql://192.0.2.1/other",
    "history_database_url": "postgresql://192.0.2.1/other",
    "Kafka_Bootstrap_Servers": "192.0.2.1:9092",
    "LOG_FORMAT": "console",
    "PGHOST": "192.0.2.1",
    "PGSSLMODE": "require",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGTARGETSESSIONATTRS": "standby",
    "PGPASSFILE": "/nowhere",
    "JAVA_TOOL_OPTIONS": "-Xmx1m",
    "JDK_JAVA_OPTIONS": "-Xmx1m",
    "KAFKA_OPTS": "-Xmx1m",
    "PYTHONWARNINGS": "error",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "LD_PRELOAD": "/nowhere.so",
    "http_proxy": "http://192.0.2.1:3128",
    "TZ": "Nowhere/At_All",
    "LC_ALL": "POSIX",
    "LANG": "de_DE.ISO-8859-1",
}


def test_no_other_variable_of_the_user_reaches_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, ports = specs_of()
    expected = [spec.launch().environment() for spec in plain.values()]
    postgres = Postgres(tmp_path / "postgres", 1, tmp_path / "log").launch().environment()
    for name, value in STRANGE.items():
        monkeypatch.setenv(name, value)
    specs, _ = specs_of()
    assert [spec.launch().environment() for spec in specs.values()] == expected
    assert Postgres(tmp_path / "postgres", 1, tmp_path / "log").launch().environment() == postgres
    assert not STRANGE.keys() & postgres.keys() - {"LC_ALL"}
    assert client_environment(ports, logins_of(ports))["DATABASE_URL"].startswith("postgresql://wallet_operator:")


def test_jars_are_downloaded_through_the_users_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://192.0.2.1:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/authorities.pem")
    environment = download_environment()
    assert environment["https_proxy"] == "http://192.0.2.1:3128"
    assert environment["SSL_CERT_FILE"] == "/authorities.pem"


def test_every_role_is_in_the_order_of_stopping() -> None:
    specs, _ = specs_of()
    roles = [role for group in STOP_ORDER for role in group]
    assert sorted(roles) == sorted({spec.role for spec in specs.values()} | {"postgres", "kafka"})


def test_clients_are_told_the_addresses_and_log_in_as_the_operator() -> None:
    _, ports = specs_of()
    logins = logins_of(ports)
    assert client_environment(ports, logins) == {
        "WALLET_API_URL": f"http://127.0.0.1:{ports['wallet-api']}",
        "HISTORY_API_URL": f"http://127.0.0.1:{ports['history-api']}",
        "DATABASE_URL": f"postgresql://wallet_operator:of-wallet_operator@127.0.0.1:{ports['postgres']}/wallet",
        "DATABASE_SUPERUSER_URL": logins.superuser_url,
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{ports['kafka']}",
    }
