"""The manifests of deploy/kubernetes, as an overlay renders them."""

from pathlib import Path

import pytest

from support.kustomizations import Manifest, render

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))


@pytest.fixture(scope="session", params=OVERLAYS, ids=lambda path: path.name)
def overlay(request: pytest.FixtureRequest) -> Path:
    """Each overlay in turn."""
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def manifests(overlay: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send for the overlay."""
    return render(overlay)


@pytest.fixture(scope="session")
def operators() -> list[Manifest]:
    """The overlay with CloudNativePG, Strimzi and KEDA."""
    return render(KUBERNETES / "overlays" / "operators")
