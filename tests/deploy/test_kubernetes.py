"""The manifests for Kubernetes: valid, restricted, and true to the processes' settings, ports and durations."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme

from common.settings import DatabaseSettings, PipelineSettings, Settings, is_secret
from support.drains import DRAIN_SECONDS
from support.kustomizations import Manifest, containers_of, name_of, pod_of, render
from support.process_settings import PORTS, PROCESS_SETTINGS

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
MOUNT = "/run/secrets/wallet"
LABEL = "app.kubernetes.io/name"
PROCESSES: dict[str, type[Settings]] = {
    **PROCESS_SETTINGS,
    "migrate": DatabaseSettings,
    "walletctl": PipelineSettings,
}
_VALIDATED: set[str] = set()


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {name_of(manifest)[1]: manifest for manifest in manifests if manifest["kind"] == kind}


def workloads(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the name of each workload and the specification of its pods."""
    for manifest in manifests:
        if pod := pod_of(manifest):
            yield name_of(manifest)[1], pod


def test_kubernetes_accepts_every_manifest_that_it_has_a_schema_for(manifests: list[Manifest]) -> None:
    without_schema = set()
    for manifest in manifests:
        # An overlay has most manifests in common with the other one.
        if (text := json.dumps(manifest)) in _VALIDATED:
            continue
        try:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
            _VALIDATED.add(text)
        except kubernetes_validate.SchemaNotFoundError:
            without_schema.add(manifest["apiVersion"].partition("/")[0])
    assert without_schema <= {"keda.sh", "kafka.strimzi.io", "postgresql.cnpg.io", "monitoring.coreos.com"}


def test_each_file_is_part_of_an_overlay() -> None:
    reached: set[Path] = set()
    for overlay in (KUBERNETES / "overlays").iterdir():
        render(overlay, reached.add)
    assert reached == {path for path in KUBERNETES.rglob("*") if path.is_file()}


def test_every_pod_meets_the_restricted_standard_and_has_no_token(manifests: list[Manifest]) -> None:
    accounts = of_kind(manifests, "ServiceAccount")
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    namespace = of_kind(manifests, "Namespace")["wallet"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in workloads(manifests):
        assert pod["serviceAccountName"] == name
        assert name in accounts
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "projected", "emptyDir"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_has_requests_and_a_limit_of_memory_over_the_measured(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for container in containers_of(manifest):
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}
            # The benchmark's target for each process is 150 MiB.
            assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 250


def test_every_deployment_is_probed_spread_and_disrupted_one_pod_at_a_time(manifests: list[Manifest]) -> None:
    budgets, deployments = of_kind(manifests, "PodDisruptionBudget"), of_kind(manifests, "Deployment")
    assert deployments.keys() == PORTS.keys() == budgets.keys()
    for name, deployment in deployments.items():
        labels = {LABEL: name}
        assert deployment["spec"]["selector"] == {"matchLabels": labels}
        assert deployment["spec"]["template"]["metadata"]["labels"] == labels
        assert budgets[name]["spec"]["selector"] == {"matchLabels": labels}
        assert budgets[name]["spec"]["maxUnavailable"] == 1
        pod = deployment["spec"]["template"]["spec"]
        spread = {constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(each["labelSelector"] == {"matchLabels": labels} for each in pod["topologySpreadConstraints"])
        [container] = pod["containers"]
        probed = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        # A server that is away must not restart a process, which waits for it.
        assert [probed[kind]["path"] for kind in ("startup", "liveness", "readiness")] == ["/live", "/live", "/ready"]
        assert {get["port"] for get in probed.values()} == {"http"}
        assert container["ports"] == [{"name": "http", "containerPort": PORTS[name]}]


def test_services_lead_to_the_apis(manifests: list[Manifest]) -> None:
    services = of_kind(manifests, "Service")
    assert services.keys() == {"wallet-api", "history-api"}
    for name, service in services.items():
        assert service["spec"]["selector"] == {LABEL: name}
        assert service["spec"]["ports"] == [{"name": "http", "port": PORTS[name], "targetPort": "http"}]


def test_a_pod_has_longer_to_end_than_its_drain_takes(manifests: list[Manifest]) -> None:
    for name, deployment in of_kind(manifests, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        hooks = pod["containers"][0].get("lifecycle", {})
        pause = hooks["preStop"]["sleep"]["seconds"] if name in {"wallet-api", "history-api"} else 0
        assert pod["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS[name]


def test_apis_are_rolled_with_a_surge_and_consumers_one_by_one(manifests: list[Manifest]) -> None:
    rolling = {
        name: deployment["spec"]["strategy"]["rollingUpdate"]
        for name, deployment in of_kind(manifests, "Deployment").items()
    }
    surge = {"maxSurge": 1, "maxUnavailable": 0}
    assert rolling.pop("history-consumer") == {"maxSurge": 0, "maxUnavailable": 1}
    assert all(found == surge for found in rolling.values())


def test_one_owner_has_the_number_of_each_deployments_pods(manifests: list[Manifest]) -> None:
    scaled = [
        scaler["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for scaler in of_kind(manifests, kind).values()
    ]
    fixed = [name for name, each in of_kind(manifests, "Deployment").items() if "replicas" in each["spec"]]
    assert sorted([*scaled, *fixed]) == sorted(PORTS)


def test_all_processes_together_leave_connections_free(operators: list[Manifest]) -> None:
    """With every autoscaler at its maximum, during a rolling update."""
    each = {"wallet-api": 15, "history-api": 12, "outbox-relay": 6, "history-consumer": 3}
    most = {
        name: manifest["spec"].get("maxReplicas") or manifest["spec"]["maxReplicaCount"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for name, manifest in of_kind(operators, kind).items()
    }
    surge = {name: 0 if name == "history-consumer" else 1 for name in each}
    total = sum(count * (most[name] + surge[name]) for name, count in each.items())
    allowed = int(of_kind(operators, "Cluster")["postgres"]["spec"]["postgresql"]["parameters"]["max_connections"])
    assert total + 20 <= allowed


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_starts_with_its_config_map_and_its_mounted_secrets(
    manifests: list[Manifest], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = dict(workloads(manifests))[name]
    [container] = pod["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    assert "env" not in container
    assert {"name": "secrets", "mountPath": MOUNT, "readOnly": True} in container["volumeMounts"]
    for file in mounted_files(pod):
        (tmp_path / file).write_text("secret")
    trustme.CA().cert_pem.write_to_path(tmp_path / "kafka-ca.crt")
    data: dict[str, str] = of_kind(manifests, "ConfigMap")[name]["data"]
    for variable, value in data.items():
        monkeypatch.setenv(variable, value.replace(MOUNT, str(tmp_path)))
    PROCESSES[name]()
    assert data.keys() <= variables_of(PROCESSES[name])
    named = {path for value in data.values() for path in re.findall(rf"{MOUNT}/([\w.-]+)", value)}
    assert named == set(mounted_files(pod))


def variables_of(settings: type[Settings]) -> set[str]:
    """Return the variables that the settings read."""
    fields = settings.model_fields
    secrets = {name for name, field in fields.items() if is_secret(field)}
    return {name.upper() for name in fields} | {f"{name}_FILE".upper() for name in secrets}


def mounted_files(pod: Manifest) -> list[str]:
    [secrets] = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    assert secrets["defaultMode"] == 0o440
    return [item["path"] for source in secrets["sources"] for item in source["secret"]["items"]]


def test_no_secret_has_its_value_here(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == {}
    for data in (each["data"] for each in of_kind(manifests, "ConfigMap").values()):
        assert [name for name in data if re.search("PASSWORD|TOKEN|SECRET", name) and not name.endswith("_FILE")] == []
        assert re.search(r"//\w+:[^@/]*@", json.dumps(data)) is None


def test_a_command_is_one_of_walletctls(manifests: list[Manifest]) -> None:
    commands = (KUBERNETES.parents[1] / "docs" / "commands.md").read_text()
    for _, pod in workloads(manifests):
        [container] = pod["containers"]
        assert (
            container.get("command") == ["sleep", "3600"] or f"## `walletctl {' '.join(container['args'])}`" in commands
        )


def test_the_migration_is_tried_again_and_can_be_applied_alone(manifests: list[Manifest]) -> None:
    spec: dict[str, Any] = of_kind(manifests, "Job")["migrate"]["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    labelled = {name_of(each) for each in manifests if each["metadata"].get("labels", {}).get(LABEL) == "migrate"}
    # What an upgrade applies first, by this label.
    assert labelled == {("Job", "migrate"), ("ServiceAccount", "migrate"), ("ConfigMap", "migrate")}
