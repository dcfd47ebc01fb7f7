"""The tests' own renderer and kustomize agree."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.kustomizations import Manifest, name_of


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_renders_an_overlay_as_the_tests_do(overlay: Path, manifests: list[Manifest]) -> None:
    command = ["kubectl", "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # The digits and letters of a hash at the end of a ConfigMap's name.
    without_hashes = re.sub(r"^( +name: [a-z-]+)-[2456789bcdfghkmt]{10}$", r"\1", done.stdout, flags=re.MULTILINE)
    rendered = {name_of(manifest): manifest for manifest in yaml.safe_load_all(without_hashes)}
    assert rendered == {name_of(manifest): manifest for manifest in manifests}
