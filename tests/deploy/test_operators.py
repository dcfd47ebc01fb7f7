"""PostgreSQL by CloudNativePG, Kafka by Strimzi and scaling by KEDA, as the project's own declarations want them."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from sqlalchemy.engine import make_url

from common.identifiers import LANES
from common.kafka.topic_settings import TopicConfiguration, needed_settings, wrong_settings
from common.settings import PipelineSettings
from common.tables.roles import Role
from outbox_relay.settings import RelaySettings
from support.command_lines import WalletCtl, walletctl
from support.databases import run_sql, with_database
from support.kafka_acls import ACLS, operation_of
from support.kustomizations import Manifest, name_of, pod_of
from support.roles import Roles
from walletctl.console import Exit

__all__ = ["walletctl"]

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
FIELDS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "custom_resources.yaml").read_text())
IDENTITIES = {"relay": "outbox-relay-kafka", "consumer": "history-consumer-kafka", "operator": "wallet-operator-kafka"}
TYPES: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "scalar": lambda value: isinstance(value, bool | int | str),
    "empty": lambda value: value == {},
}


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [manifest for manifest in manifests if name_of(manifest) == (kind, name)]
    return found


def spec(manifests: list[Manifest], kind: str, name: str) -> Any:
    return named(manifests, kind, name)["spec"]


def leaves(part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the value of each field that has no fields of its own."""
    if isinstance(part, dict) and part:
        for name, value in part.items():
            yield from leaves(value, (*path, name))
    elif isinstance(part, list):
        for value in part:
            yield from leaves(value, (*path, "[]"))
    else:
        yield path, part


def is_allowed(fields: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    # A name with a dot in it is one step.
    allowed = fields.get(".".join(path)) or fields.get(".".join((*path[:-1], "*")))
    return value in allowed if isinstance(allowed, list) else TYPES[allowed](value) if allowed else False


def test_the_operators_know_every_field(operators: list[Manifest]) -> None:
    kinds = set()
    for manifest in operators:
        if fields := FIELDS.get(f"{manifest['apiVersion']} {manifest['kind']}"):
            kinds.add(manifest["kind"])
            wrong = [(path, value) for path, value in leaves(manifest["spec"]) if not is_allowed(fields, path, value)]
            assert (name_of(manifest), wrong) == (name_of(manifest), [])
    assert kinds == {title.split()[1] for title in FIELDS}


def test_a_commit_waits_for_one_of_two_standbys(operators: list[Manifest]) -> None:
    cluster = spec(operators, "Cluster", "postgres")
    assert cluster["instances"] == 3
    assert cluster["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
        "failoverQuorum": True,
    }
    assert cluster["affinity"]["podAntiAffinityType"] == "required"
    assert cluster["bootstrap"]["initdb"]["encoding"] == "UTF8"


def test_each_role_logs_in_with_a_secret_and_each_process_as_its_role(operators: list[Manifest]) -> None:
    roles = spec(operators, "Cluster", "postgres")["managed"]["roles"]
    secrets = {role["name"]: role["passwordSecret"]["name"] for role in roles if role["login"]}
    assert secrets == {role.value: f"{role.value.replace('_', '-')}-database" for role in Role}
    for manifest in operators:
        if pod := pod_of(manifest):
            _, process = name_of(manifest)
            url = named(operators, "ConfigMap", process)["data"]["DATABASE_URL"]
            # `postgres-rw` is in the certificate that the operator makes.
            [role] = re.findall(r"^postgresql://(\w+)@postgres-rw:5432/wallet\?sslmode=verify-full&", url)
            assert secrets[role] in mounted_secrets(pod)


def mounted_secrets(pod: Manifest) -> set[str]:
    [secrets] = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    return {source["secret"]["name"] for source in secrets["sources"]}


def run(url: str, *statements: str) -> None:
    asyncio.run(run_sql(url, *statements))


def test_db_migrate_makes_the_tables_with_the_roles_as_the_operator_makes_them(
    operators: list[Manifest], postgres_url: str, walletctl: WalletCtl
) -> None:
    cluster = spec(operators, "Cluster", "postgres")
    unique = uuid4().hex[:8]
    roles = Roles({role: f"{role.value}_{unique}" for role in Role})
    database = f"wallet_{unique}"
    memberships = [
        f"GRANT {group}_{unique} TO {role['name']}_{unique}"
        for role in cluster["managed"]["roles"]
        for group in role.get("inRoles", [])
    ]
    owner = f"{cluster['bootstrap']['initdb']['owner']}_{unique}"
    run(postgres_url, *roles.login_statements(create=Role), *memberships)
    run(postgres_url, f"CREATE DATABASE {database} OWNER {owner} ENCODING 'UTF8' TEMPLATE template0")
    url = roles.url(with_database(postgres_url, database), Role.OWNER)
    done = walletctl("db", "migrate", DATABASE_URL=url, **roles.environment)
    again = walletctl("db", "migrate", DATABASE_URL=url, **roles.environment)
    run(postgres_url, f"DROP DATABASE {database} WITH (FORCE)", f"DROP ROLE {', '.join(roles.names.values())}")
    assert make_url(url).username == owner
    assert (done.returncode, again.returncode) == (Exit.OK, Exit.OK), done.stderr


def test_the_topic_has_the_settings_and_the_replicas_of_the_docs(operators: list[Manifest]) -> None:
    topic = spec(operators, "KafkaTopic", "wallet-events")
    assert topic["topicName"] == RelaySettings.model_fields["kafka_topic"].default
    assert topic["partitions"] == RelaySettings.model_fields["kafka_topic_partitions"].default
    config = {name: str(value).lower() if value is False else str(value) for name, value in topic["config"].items()}
    assert config.items() >= needed_settings(-1).items()
    assert wrong_settings(TopicConfiguration(config, topic["replicas"]), -1) == {}
    pool, kafka = spec(operators, "KafkaNodePool", "node"), spec(operators, "Kafka", "kafka")["kafka"]
    assert topic["replicas"] == pool["replicas"] == kafka["config"]["default.replication.factor"] == 3
    assert config["min.insync.replicas"] == str(kafka["config"]["min.insync.replicas"]) == "2"


def test_each_kafka_user_has_the_rights_of_the_docs_and_no_other(operators: list[Manifest]) -> None:
    wanted = {(IDENTITIES[identity], resource, operation) for identity, resource, operation in ACLS}
    autoscaler = {("autoscaler-kafka", "topic", "DESCRIBE"), ("autoscaler-kafka", "group", "DESCRIBE")}
    assert set(rights(operators)) == wanted | autoscaler


def rights(operators: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    names = {"topic": "wallet_events", "group": PipelineSettings.model_fields["consumer_group"].default}
    for manifest in operators:
        if manifest["kind"] == "KafkaUser":
            for acl in manifest["spec"]["authorization"]["acls"]:
                resource = acl["resource"]["type"]
                assert acl["resource"]["name"] == names[resource]
                for operation in acl["operations"]:
                    yield name_of(manifest)[1], resource, operation_of(operation)


def test_a_process_logs_in_to_kafka_as_its_user_at_the_listener(operators: list[Manifest]) -> None:
    [listener] = spec(operators, "Kafka", "kafka")["kafka"]["listeners"]
    assert (listener["tls"], listener["authentication"]["type"]) == (True, "scram-sha-512")
    for process, user in zip(("outbox-relay", "history-consumer", "walletctl"), IDENTITIES.values(), strict=True):
        data = named(operators, "ConfigMap", process)["data"]
        assert data["KAFKA_SASL_USERNAME"] == user
        assert (data["KAFKA_SECURITY_PROTOCOL"], data["KAFKA_SASL_MECHANISM"]) == ("SASL_SSL", "SCRAM-SHA-512")
        assert data["KAFKA_BOOTSTRAP_SERVERS"] == f"kafka-kafka-bootstrap.wallet.svc:{listener['port']}"
        [pod] = [pod for each in operators if name_of(each)[1] == process and (pod := pod_of(each))]
        # Strimzi names a user's Secret as the user, and the authority's after the cluster.
        assert {user, "kafka-cluster-ca-cert"} <= mounted_secrets(pod)
    for manifest in operators:
        if manifest["kind"] in {"KafkaUser", "KafkaTopic", "KafkaNodePool"}:
            assert manifest["metadata"]["labels"] == {"strimzi.io/cluster": "kafka"}


def test_scaling_stops_where_more_pods_would_have_nothing_to_do(operators: list[Manifest]) -> None:
    consumers = spec(operators, "ScaledObject", "history-consumer")
    assert consumers["maxReplicaCount"] == spec(operators, "KafkaTopic", "wallet-events")["partitions"]
    relays = spec(operators, "ScaledObject", "outbox-relay")
    assert relays["maxReplicaCount"] == LANES // RelaySettings.model_fields["relay_lanes_per_batch"].default
    assert min(consumers["minReplicaCount"], relays["minReplicaCount"]) == 2


def test_keda_reads_metrics_settings_and_secrets_that_exist(operators: list[Manifest]) -> None:
    [prometheus] = spec(operators, "ScaledObject", "outbox-relay")["triggers"]
    [metric] = re.findall(r"max\((\w+)\{", prometheus["metadata"]["query"])
    assert f"`{metric}`" in (DOCS / "metrics.md").read_text()
    [kafka] = spec(operators, "ScaledObject", "history-consumer")["triggers"]
    read = {value for name, value in kafka["metadata"].items() if name.endswith("FromEnv")}
    assert read <= named(operators, "ConfigMap", "history-consumer")["data"].keys()
    login = spec(operators, "TriggerAuthentication", kafka["authenticationRef"]["name"])
    [username] = login["configMapTargetRef"]
    user = named(operators, "ConfigMap", username["name"])["data"][username["key"]]
    assert named(operators, "KafkaUser", user)
    assert {secret["name"] for secret in login["secretTargetRef"]} == {user, "kafka-cluster-ca-cert"}
