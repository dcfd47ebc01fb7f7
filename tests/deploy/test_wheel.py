"""The wheel installs into an empty environment, and works there."""

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.ports import free_port
from support.processes import http_client
from support.roles import Roles
from walletctl.stack.readiness import HttpProbe

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def process(*command: str | Path, **environment: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process until the end of the block at the latest."""
    with subprocess.Popen(command, env={**ENVIRONMENT, **environment}) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture(scope="module")
def walletctl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel, in an environment that has the locked requirements and nothing else."""
    directory = tmp_path_factory.mktemp("release")
    uv = shutil.which("uv") or ROOT / ".tools" / "bin" / "uv"
    python = directory / "venv" / "bin" / "python"
    # The wheel is built from the source archive: so that has all that a build needs.
    run(uv, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", directory)
    run(uv, "venv", "--quiet", "--python", sys.executable, directory / "venv")
    install = (uv, "pip", "install", "--quiet", "--python", python)
    run(*install, "--require-hashes", "--requirement", "requirements/runtime.txt")
    run(*install, "--no-deps", "--no-index", *directory.glob("*.whl"))
    return python.with_name("walletctl")


async def test_the_wheel_alone_migrates_an_empty_database_and_creates_a_wallet_for_a_key(
    walletctl: Path, empty_database_url: str, roles: Roles, eventually: Callable[..., Awaitable[Any]]
) -> None:
    assert run(walletctl, "--version") == f"wallet-outbox {VERSION}\n"
    settings = {"DATABASE_URL": empty_database_url, "WALLET_API_PORT": str(free_port())}
    run(walletctl, "db", "migrate", **settings, **roles.environment)
    key = run(walletctl, "keys", "create", "--name", "shop", "--scopes", "wallets:write", **settings).strip()
    url = f"http://127.0.0.1:{settings['WALLET_API_PORT']}"
    with process(walletctl, "api", "serve", **settings) as api:
        probe = HttpProbe(f"{url}/ready")

        async def is_ready() -> bool:
            assert api.poll() is None
            return await probe.ready()

        await eventually(is_ready, 40)
        async with http_client(url, api_key=key) as client:
            created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"})
        assert created.status_code == 201, created.text
        api.send_signal(signal.SIGTERM)
        assert api.wait(20) == 0
