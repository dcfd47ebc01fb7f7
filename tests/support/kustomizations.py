"""Renders the kustomizations of deploy/kubernetes, without a binary.

It knows the fields that those files use, and refuses all others. Where `kubectl` is installed, a test compares the
result with `kubectl kustomize`. It leaves out one thing: a hash at the end of the names of ConfigMaps.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_FIELDS = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "images", "patches"}
_CLUSTER_SCOPED = {"Namespace"}


def render(folder: Path, reached: Callable[[Path], object] = lambda _: None) -> list[Manifest]:
    """Return the manifests of a kustomization.

    Args:
        folder: where its `kustomization.yaml` is.
        reached: is called with each file that is read.
    """
    return _render(folder.resolve(), [], reached)


def name_of(manifest: Manifest) -> tuple[str, str]:
    """Return the kind and the name, which are unique in a namespace."""
    return manifest["kind"], manifest["metadata"]["name"]


def containers_of(manifest: Manifest) -> Iterator[Manifest]:
    """Yield each container of a workload; none for other kinds."""
    yield from (pod_of(manifest) or {}).get("containers", [])


def pod_of(manifest: Manifest) -> Manifest | None:
    """Return the specification of a workload's pods; None for other kinds."""
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    pod: Manifest | None = template.get("spec")
    return pod if pod and "containers" in pod else None


def _render(folder: Path, manifests: list[Manifest], reached: Callable[[Path], object]) -> list[Manifest]:
    file = folder / "kustomization.yaml"
    reached(file)
    kustomization = yaml.safe_load(file.read_text())
    assert kustomization.keys() <= _FIELDS, f"{file}: {kustomization.keys() - _FIELDS}"
    for resource in kustomization.get("resources", []):
        manifests = [*manifests, *_resource((folder / resource).resolve(), reached)]
    for component in kustomization.get("components", []):
        manifests = _render((folder / component).resolve(), manifests, reached)
    for generator in kustomization.get("configMapGenerator", []):
        _generate(manifests, generator)
    for patch in kustomization.get("patches", []):
        _patch(manifests, patch)
    for image in kustomization.get("images", []):
        _replace_image(manifests, image)
    if namespace := kustomization.get("namespace"):
        for manifest in manifests:
            if manifest["kind"] not in _CLUSTER_SCOPED:
                manifest["metadata"]["namespace"] = namespace
    return manifests


def _resource(path: Path, reached: Callable[[Path], object]) -> list[Manifest]:
    if path.is_dir():
        return _render(path, [], reached)
    reached(path)
    return list(yaml.safe_load_all(path.read_text()))


def _generate(manifests: list[Manifest], generator: Mapping[str, Any]) -> None:
    assert generator.keys() <= {"name", "behavior", "literals", "options"}
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    if generator.get("behavior") == "merge":
        [found] = [manifest for manifest in manifests if name_of(manifest) == ("ConfigMap", generator["name"])]
        found["data"] |= data
        return
    metadata: Manifest = {"name": generator["name"]}
    if labels := generator.get("options", {}).get("labels"):
        metadata["labels"] = labels
    manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _patch(manifests: list[Manifest], patch: Mapping[str, Any]) -> None:
    target = patch["target"]
    [manifest] = [found for found in manifests if name_of(found) == (target["kind"], target["name"])]
    for operation in yaml.safe_load(patch["patch"]):
        *path, last = operation["path"].strip("/").split("/")
        parent: Any = manifest
        for step in path:
            parent = parent[int(step) if isinstance(parent, list) else step]
        if operation["op"] == "remove":
            del parent[last]
        else:
            assert operation["op"] == "add"
            assert isinstance(parent, dict)
            parent[last] = operation["value"]


def _replace_image(manifests: list[Manifest], image: Mapping[str, str]) -> None:
    for manifest in manifests:
        for container in containers_of(manifest):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
