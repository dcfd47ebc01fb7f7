"""The network policies: everything is denied but what a process needs."""

from collections.abc import Iterator
from typing import Any

from support.kustomizations import Manifest, name_of, pod_of

DATABASE_CLIENTS = {"wallet-api", "outbox-relay", "history-consumer", "history-api", "migrate", "walletctl"}
KAFKA_CLIENTS = {"outbox-relay", "history-consumer", "walletctl"}
APIS = {"wallet-api", "history-api"}
MONITORED = APIS | {"outbox-relay", "history-consumer"}
LABEL = "app.kubernetes.io/name"


def policies(manifests: list[Manifest]) -> dict[str, Any]:
    return {name_of(each)[1]: each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"}


def selected(policy: Manifest) -> set[str]:
    """Return the names of the processes that the policy is for."""
    [expression] = policy["podSelector"]["matchExpressions"]
    assert expression["key"] == LABEL
    assert expression["operator"] == "In"
    return set(expression["values"])


def ports(policy: Manifest, direction: str) -> set[Any]:
    return {port["port"] for rule in policy[direction] for port in rule["ports"]}


def urls(manifests: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Yield each process, setting and value that names a server."""
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            for name, value in manifest["data"].items():
                if name in {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"}:
                    yield name_of(manifest)[1], name, value


def test_all_traffic_is_denied_at_first(manifests: list[Manifest]) -> None:
    assert policies(manifests)["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_pod_resolves_names(manifests: list[Manifest]) -> None:
    dns = policies(manifests)["dns"]
    assert dns["podSelector"] == {}
    [rule] = dns["egress"]
    assert rule["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def test_only_clients_reach_postgres_and_kafka_at_the_ports_of_their_settings(manifests: list[Manifest]) -> None:
    found = policies(manifests)
    assert selected(found["to-postgres"]) == DATABASE_CLIENTS
    assert selected(found["to-kafka"]) == KAFKA_CLIENTS
    servers = list(urls(manifests))
    assert {process for process, name, _ in servers if name == "DATABASE_URL"} == DATABASE_CLIENTS
    assert {process for process, name, _ in servers if name != "DATABASE_URL"} == KAFKA_CLIENTS
    assert {
        url.partition("@")[2].partition("/")[0].partition(":")[2] for _, name, url in servers if "DATA" in name
    } == {str(*ports(found["to-postgres"], "egress"))}
    brokers = [broker for _, name, value in servers if "KAFKA" in name for broker in value.split(",")]
    assert {broker.partition(":")[2] for broker in brokers} == {str(*ports(found["to-kafka"], "egress"))}


def test_an_overlay_names_the_servers_addresses(manifests: list[Manifest]) -> None:
    found = policies(manifests)
    for name in ("to-postgres", "to-kafka"):
        assert all(rule["to"] for rule in found[name]["egress"])


def test_callers_come_through_the_ingress_controller_and_figures_leave_to_the_monitoring(
    manifests: list[Manifest],
) -> None:
    found = policies(manifests)
    assert selected(found["from-ingress-controller"]) == APIS
    assert selected(found["from-monitoring"]) == MONITORED
    for name in ("from-ingress-controller", "from-monitoring"):
        assert ports(found[name], "ingress") == {"http"}
        assert all(peer["namespaceSelector"] for rule in found[name]["ingress"] for peer in rule["from"])


def test_the_servers_of_the_operators_let_the_same_clients_in(operators: list[Manifest]) -> None:
    postgres = policies(operators)["postgres"]
    clients, *_ = postgres["ingress"]
    assert selected(clients["from"][0]) == DATABASE_CLIENTS
    assert clients["ports"] == [{"protocol": "TCP", "port": 5432}]
    [kafka] = [each["spec"]["kafka"] for each in operators if each["kind"] == "Kafka"]
    [listener] = kafka["listeners"]
    assert selected(listener["networkPolicyPeers"][0]) == KAFKA_CLIENTS
    for policy, label in (("postgres", "cnpg.io/cluster"), ("kafka", "strimzi.io/cluster")):
        assert policies(operators)[policy]["podSelector"] == {"matchLabels": {label: policy}}
        assert "Egress" in policies(operators)[policy]["policyTypes"]


def test_every_process_that_a_selector_names_exists(manifests: list[Manifest]) -> None:
    processes = {name_of(manifest)[1] for manifest in manifests if pod_of(manifest)}
    assert processes == DATABASE_CLIENTS
    for manifest in manifests:
        assert set(_values(manifest, LABEL)) <= processes


def _values(part: Any, label: str) -> Iterator[str]:
    """Yield the values that a part of a manifest has for a label or selects by it."""
    if isinstance(part, list):
        for each in part:
            yield from _values(each, label)
    elif isinstance(part, dict):
        if part.get("key") == label:
            yield from part["values"]
        if isinstance(value := part.get(label), str):
            yield value
        for each in part.values():
            yield from _values(each, label)
