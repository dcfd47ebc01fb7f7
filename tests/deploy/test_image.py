"""The image in containers as a cluster confines them. `make test-release` runs these tests; they need Docker."""

import json
import subprocess
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SIZE_BYTES_MAX = 250_000_000
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
PORTS = {"api serve": 8000, "history serve": 8001, "relay run": 9401, "consumer run": 9402}
KAFKA = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9094",
    "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka:9092",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
}
SIGTERM_IS_CAUGHT = """
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
raise SystemExit(not int(status["SigCgt"], 16) >> 14 & 1)
"""
IS_READY = "import sys, urllib.request as r; r.urlopen(f'http://127.0.0.1:{sys.argv[1]}/ready')"
DIGESTS = "find /opt /usr/local /etc/passwd /etc/group -type f -print0 | sort -z | xargs -0 sha256sum"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def succeeds(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def name() -> str:
    """What images, containers and networks of this run are named after."""
    try:
        docker("version")
    except (AssertionError, FileNotFoundError) as error:
        pytest.skip(f"no Docker engine answers: {error}")
    return f"wallet-test-{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def image(name: str) -> Iterator[str]:
    tag = f"wallet-outbox:{name}"
    subprocess.run(["make", "--no-print-directory", "image", f"IMAGE={tag}"], cwd=ROOT, check=True)
    yield tag
    docker("image", "rm", tag)


@pytest.fixture(scope="module")
def servers(name: str) -> Iterator[str]:
    """A network with PostgreSQL and Kafka."""
    docker("network", "create", name)
    environment = [f"--env={key}={value}" for key, value in KAFKA.items()]
    docker(
        "run",
        "-d",
        f"--name={name}-kafka",
        "--network-alias=kafka",
        f"--network={name}",
        *environment,
        "apache/kafka:4.1.0",
    )
    docker(
        *("run", "-d", f"--name={name}-postgres", "--network-alias=postgres", f"--network={name}"),
        *("--env=POSTGRES_PASSWORD=secret", "--env=POSTGRES_DB=wallet", "postgres:18"),
    )
    yield name
    docker("rm", "-fv", f"{name}-kafka", f"{name}-postgres")
    docker("network", "rm", name)


@pytest.fixture
def confined(image: str, servers: str) -> Iterator[Callable[..., str]]:
    """Starts a command in a confined container, and returns the container's name."""
    started: list[str] = []

    def run(command: str, *options: str) -> str:
        started.append(f"{servers}-{len(started)}-{command.split(maxsplit=1)[0]}")
        servers_of = ("DATABASE_URL=postgresql://postgres:secret@postgres/wallet", "KAFKA_BOOTSTRAP_SERVERS=kafka:9092")
        settings = [f"--env={setting}" for setting in servers_of]
        docker(
            *("run", "-d", f"--name={started[-1]}", f"--network={servers}", *CONFINED, *settings, *options),
            *(image, *command.split()),
        )
        return started[-1]

    yield run
    docker("rm", "-f", *started)


@pytest.fixture(scope="module")
def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def test_the_image_is_small(inspected: dict[str, Any]) -> None:
    assert inspected["Size"] < SIZE_BYTES_MAX


def test_the_image_says_what_it_is_and_starts_walletctl_as_a_numeric_user(
    inspected: dict[str, Any], image: str
) -> None:
    config = inspected["Config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("10001:10001", ["walletctl"], None)
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["title"], labels["version"]) == ("wallet-outbox", VERSION)
    assert labels["description"]
    assert "unknown" not in {labels["created"], labels["revision"]}
    assert docker("run", "--rm", *CONFINED, image, "--version") == f"wallet-outbox {VERSION}"


def test_the_image_has_no_compiler_no_installer_and_no_cache(image: str) -> None:
    found = docker(
        *("run", "--rm", "--user=0", "--entrypoint=sh", image, "-c"),
        "for tool in cc gcc g++ c++ clang ld as strip make cmake cargo rustc go pip pip3 uv curl wget git; do"
        " command -v $tool; done; ls -A ~/.cache /tmp /mnt /var/lib/apt/lists 2>/dev/null | grep -v :$;"
        "for module in pip setuptools wheel hatchling ensurepip; do"
        " python -c 'import sys, importlib.util as u; u.find_spec(sys.argv[1]) and print(sys.argv[1])' $module; done",
    )
    assert found == ""


def test_two_builds_have_the_same_files(image: str, name: str) -> None:
    again = f"wallet-outbox:{name}-again"
    docker("build", "--quiet", "--no-cache", "--tag", again, "--file", "deploy/Dockerfile", ".")
    try:
        builds = [docker("run", "--rm", "--entrypoint=sh", tag, "-c", DIGESTS) for tag in (image, again)]
    finally:
        docker("image", "rm", again)
    assert builds[0].count("\n") > 1000
    assert builds[0] == builds[1]


async def test_each_process_becomes_ready_in_a_confined_container_and_ends_with_0_on_docker_stop(
    confined: Callable[..., str], servers: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async def is_up() -> bool:
        return succeeds("exec", f"{servers}-postgres", "pg_isready", "-h", "127.0.0.1")

    await eventually(is_up, 60)
    assert docker("wait", confined("db migrate")) == "0"
    two_workers = ("--env=WALLET_API_WORKERS=2", "--tmpfs=/tmp")
    containers = [(confined(command), port) for command, port in PORTS.items()]
    containers.append((confined("api serve", *two_workers), PORTS["api serve"]))
    for container, port in containers:

        async def is_ready(container: str = container, port: int = port) -> bool:
            return succeeds("exec", container, "python", "-c", IS_READY, str(port))

        await eventually(is_ready, 120)
    docker("stop", "--time=60", *[container for container, _ in containers])
    states = json.loads(docker("inspect", *[container for container, _ in containers]))
    assert {state["Name"]: state["State"]["ExitCode"] for state in states} == {state["Name"]: 0 for state in states}, (
        "\n".join(docker("logs", container) for container, _ in containers)
    )


async def test_a_command_that_waits_for_a_server_ends_on_docker_stop_though_it_is_the_first_process(
    confined: Callable[..., str], servers: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    docker("pause", f"{servers}-postgres")
    try:
        container = confined("db migrate")

        async def has_begun() -> bool:
            return succeeds("exec", container, "python", "-c", SIGTERM_IS_CAUGHT)

        await eventually(has_begun, 60)
        docker("stop", "--time=60", container)
        assert docker("inspect", "--format={{.State.ExitCode}}", container) == "143"
    finally:
        docker("unpause", f"{servers}-postgres")
