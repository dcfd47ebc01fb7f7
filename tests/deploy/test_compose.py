"""compose.yaml as a document: what it promises without a Docker engine. `make compose-test` tries it on one."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from common.kafka.topic_settings import needed_settings
from common.postgres.grants import USUAL_NAMES, grants_script
from common.postgres.migrations import SCHEMAS
from common.settings import DatabaseSettings, OperatorSettings, PipelineSettings, Settings
from outbox_relay.settings import RelaySettings
from support.drains import DRAIN_SECONDS
from support.kafka_acls import ACLS, operation_of
from support.process_settings import PORTS, PROCESS_SETTINGS
from walletctl.settings import DemoSettings

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
APIS = ("wallet-api", "history-api")
WORKERS = ("outbox-relay", "history-consumer")
LASTING = (*APIS, *WORKERS, "postgres", "kafka")
ONE_OFF = ("roles", "migrate", "topic", "walletctl")
READ: dict[str, tuple[type[Settings], ...]] = {
    "migrate": (DatabaseSettings,),
    **{name: (settings,) for name, settings in PROCESS_SETTINGS.items()},
    "walletctl": (OperatorSettings, PipelineSettings, DemoSettings),
}
"""The settings that a service reads."""

by_service = pytest.mark.parametrize("name", SERVICES)


def networks_of(name: str) -> set[str]:
    mode = SERVICES[name].get("network_mode", "")
    return networks_of(mode.removeprefix("service:")) if mode else set(SERVICES[name]["networks"])


def environment_of(name: str, document: dict[str, dict[str, Any]] = SERVICES) -> dict[str, str]:
    return dict(document[name].get("environment", {}))


def test_each_service_is_one_that_lasts_or_one_that_ends() -> None:
    assert sorted(SERVICES) == sorted([*LASTING, *ONE_OFF])
    assert {SERVICES[name]["restart"] for name in LASTING} == {"unless-stopped"}
    assert {SERVICES[name]["restart"] for name in ONE_OFF} == {"no"}
    assert {name for name in WORKERS if SERVICES[name]["deploy"]["replicas"] == 2} == set(WORKERS)


@by_service
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in {"", "root", "0"}
    assert not {"cap_add", "privileged", "devices", "pid", "ipc"} & set(service)
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_lasts_is_checked_and_not_too_often(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert int(check["interval"].removesuffix("s")) >= 5
    assert int(check["timeout"].removesuffix("s")) <= int(check["interval"].removesuffix("s"))


@pytest.mark.parametrize("name", DRAIN_SECONDS)
def test_a_process_has_more_time_to_stop_than_it_needs(name: str) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS[name]


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == set(APIS)
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert all(ports[0].endswith(f":-{PORTS[name]}}}:{PORTS[name]}") for name, ports in published.items())


@pytest.mark.parametrize("name", PORTS)
def test_a_process_is_checked_at_its_port(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][-1] == str(PORTS[name])


def test_callers_reach_the_apis_only_and_the_apis_do_not_reach_kafka() -> None:
    assert {name for name in LASTING if "callers" in networks_of(name)} == set(APIS)
    assert not [name for name in APIS if networks_of(name) & networks_of("kafka")]
    assert not [(api, worker) for api in APIS for worker in WORKERS if networks_of(api) & networks_of(worker)]
    assert {name for name, network in COMPOSE["networks"].items() if not network.get("internal")} == {"callers"}


def test_the_servers_are_the_upstream_images() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert {images["postgres"], images["roles"]} == {"postgres:18"}
    assert {images["kafka"], images["topic"]} == {"apache/kafka:4.1.0"}
    assert {images[name] for name in READ} == {"${WALLET_IMAGE:-wallet-outbox:local}"}


@by_service
def test_a_secret_is_in_a_file_and_never_in_the_environment(name: str) -> None:
    for variable, value in environment_of(name).items():
        if variable.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]
        else:
            assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY$", variable)
        assert urlsplit(str(value)).password is None


def test_secrets_are_files_that_git_ignores() -> None:
    files = [secret["file"] for secret in COMPOSE["secrets"].values()]
    assert files == [f"deploy/compose/secrets/{name}" for name in COMPOSE["secrets"]]
    assert {"deploy/compose/secrets/", "deploy/compose/certificates/"} <= set((ROOT / ".gitignore").read_text().split())


def test_each_process_has_the_passwords_of_its_own_logins_only() -> None:
    for name in READ:
        environment = environment_of(name)
        logins = {f"{urlsplit(environment['DATABASE_URL']).username}_password"}
        if "KAFKA_SASL_USERNAME" in environment:
            logins.add(f"kafka_{environment['KAFKA_SASL_USERNAME']}_password")
        assert set(SERVICES[name]["secrets"]) == logins


@pytest.mark.parametrize("name", READ)
def test_each_variable_is_a_setting_of_the_process(name: str) -> None:
    fields = {field.upper() for settings in READ[name] for field in settings.model_fields}
    assert {variable.removesuffix("_FILE") for variable in environment_of(name)} <= fields


@pytest.mark.parametrize("name", APIS)
def test_the_apis_ask_for_keys(name: str) -> None:
    assert environment_of(name)["AUTH"] == "keys"


def test_the_roles_are_those_that_db_grants_prints() -> None:
    statements = grants_script(USUAL_NAMES, SCHEMAS, with_tables=False)
    wanted = "".join(f"{sql};{f' -- {why}' if why else ''}\n" for sql, why in statements)
    written = (HERE / "postgres" / "roles.sql").read_text()
    assert written == wanted, "run: walletctl db grants --before-migrate > deploy/compose/postgres/roles.sql"


def test_the_topic_is_made_as_the_relay_would_make_it() -> None:
    script = (HERE / "kafka" / "make-topic.sh").read_text()
    assert dict(re.findall(r"--config ([a-z.]+)=(\S+)", script)) == needed_settings(-1)
    partitions = RelaySettings.model_fields["kafka_topic_partitions"].default
    assert f"KAFKA_TOPIC_PARTITIONS:-{partitions}}}" in script


def test_the_acls_are_those_of_the_page() -> None:
    found = set()
    for line in re.findall(r"^allow (.+)$", (HERE / "kafka" / "make-topic.sh").read_text(), re.MULTILINE):
        identity = line.split()[0]
        resources = re.findall(r"--(topic|group) ", line)
        names = re.findall(r"--operation (\w+)", line)
        found |= {(identity, resource, operation_of(name)) for resource in resources for name in names}
    assert found == set(ACLS)


@pytest.mark.parametrize(
    ("file", "variable", "wanted"),
    [
        ("kafka-tls.yaml", "KAFKA_BOOTSTRAP_SERVERS", {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}),
        ("postgres-tls.yaml", "DATABASE_URL", {"PGSSLMODE": "verify-full"}),
    ],
)
def test_with_tls_each_client_verifies_the_server(file: str, variable: str, wanted: dict[str, str]) -> None:
    overlay = yaml.safe_load((HERE / file).read_text())
    clients = {name for name in SERVICES if variable in environment_of(name)}
    assert clients <= set(overlay["services"])
    for name in clients:
        assert environment_of(name, overlay["services"]).items() >= wanted.items()
        assert overlay["services"][name]["secrets"] == ["ca_certificate"]
        assert "/run/secrets/ca_certificate" in environment_of(name, overlay["services"]).values()
    files = [secret["file"] for secret in overlay["secrets"].values()]
    assert all(file.startswith("deploy/compose/certificates/") for file in files)
