"""Attacks compose.yaml on a Docker engine, under a project name of its own: `make compose-test`.

It starts everything from nothing, proves the demo's promises with an API key, and tries each way through the networks.
It stops and kills each container under load, and takes everything down and up again. After each step `walletctl verify`
has to agree. At the end it removes its containers, networks and volumes. It ends with exit code 1 at the first broken
promise. COMPOSE_FILE names more files, such as those with TLS.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = os.environ.get("COMPOSE_TEST_PROJECT", "wallet-compose-test")
ENVIRONMENT: Final = {
    # Other ports than the usual ones, so that a project that runs is left alone.
    "WALLET_API_PORT": "18800",
    "HISTORY_API_PORT": "18801",
    "WALLET_IMAGE": f"{PROJECT}:local",
}
SCOPES: Final = "wallets:read,wallets:write,funds:write,ops:write,history:read"
BACK_SECONDS_MAX: Final = 180.0
WORKERS: Final = ("outbox-relay", "history-consumer")
APIS: Final = ("wallet-api", "history-api")
SERVERS: Final = ("kafka", "postgres")

PORTS: Final = {
    "wallet-api": 8000,
    "history-api": 8001,
    "outbox-relay": 9401,
    "history-consumer": 9402,
    "postgres": 5432,
    "kafka": 9092,
}
ROUTES: Final[Mapping[str, set[str]]] = {
    **{api: {*APIS, "postgres"} for api in APIS},
    **{worker: {*WORKERS, "postgres", "kafka"} for worker in WORKERS},
}
"""Which services a service can reach. The APIs have no route to Kafka, and the workers none to callers."""
TRY_TARGETS: Final = """
import json, socket, sys
reached = []
for name, address, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((address, port), 2).close()
        reached.append(name)
    except OSError:
        pass
gateways = [line.split()[2] for line in open("/proc/net/route") if line.split()[1] == "00000000"]
print(json.dumps({"reached": sorted(set(reached)), "gateways": len(gateways)}))
"""
DIGEST: Final = (
    "SELECT (SELECT md5(string_agg(wallets::text, ',' ORDER BY id)) FROM wallet.wallets),"
    " (SELECT count(*) FROM wallet.wallets), (SELECT count(*) FROM history.transaction_events)"
)


class BrokenPromiseError(Exception):
    """A promise did not hold; the message says which."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPromiseError(what)


def docker(*arguments: str, **variables: str) -> str:
    """Run a docker command; return its standard output."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def compose(*arguments: str, **variables: str) -> str:
    """Run a command on the project."""
    return docker("compose", "--project-name", PROJECT, *arguments, **variables)


def walletctl(*arguments: str, **variables: str) -> str:
    """Run an operator's command."""
    passed = [option for name in variables for option in ("--env", name)]
    return compose("run", "--rm", "--no-TTY", *passed, "walletctl", *arguments, **variables)


def containers(*services: str) -> list[dict[str, Any]]:
    """Return what the engine knows of the containers of these services."""
    ids = compose("ps", "--all", "--quiet", *services).split()
    return list(json.loads(docker("inspect", *ids)))


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:7.1f} s  {what}", flush=True)


@contextmanager
def project() -> Iterator[None]:
    """Remove what an earlier run left, and at the end what this run made."""
    remove = ("down", "--volumes", "--remove-orphans", "--timeout", "60")
    compose(*remove)
    try:
        yield
    except BrokenPromiseError:
        print(compose("logs", "--tail", "30"), flush=True)
        raise
    finally:
        compose(*remove)


def verified() -> dict[str, Any]:
    """Verify that everything agrees and that all has arrived; return what `verify` counted."""
    deadline = time.monotonic() + BACK_SECONDS_MAX
    while True:
        report: dict[str, Any] = json.loads(walletctl("verify", "--json"))
        require(report["ok"], f"verify: {report['differences']}")
        if not report["horizon"]["pending"] and not report["horizon"]["on_their_way"]:
            return report
        require(time.monotonic() < deadline, f"events are still on their way: {report['horizon']}")


def demo(key: str) -> None:
    report = json.loads(walletctl("stack", "demo", "--against-env", "--json", WALLET_API_KEY=key))
    require(report["ok"] and report["verify"]["ok"], f"demo: {report['broken']}")


@contextmanager
def load(key: str, *, must_hold: bool) -> Iterator[None]:
    """Run the demo beside the block; it has begun to move money when the block begins.

    Args:
        key: an API key.
        must_hold: whether each of its requests must succeed: not if the block stops an API.
    """
    before = wallet_count()
    failed: list[BrokenPromiseError] = []

    def run() -> None:
        try:
            demo(key)
        except BrokenPromiseError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: not thread.is_alive() or wallet_count() >= before + 40, "the demo has not begun")
    yield
    thread.join()
    if must_hold and failed:
        raise failed[0]


def digest() -> str:
    """Return what tells the wallets and the history from others."""
    return compose("exec", "--no-TTY", "postgres", "psql", "-U", "postgres", "-d", "wallet", "-Atc", DIGEST).strip()


def wallet_count() -> int:
    return int(digest().split("|")[1])


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + BACK_SECONDS_MAX
    while not condition():
        require(time.monotonic() < deadline, otherwise)
        time.sleep(0.2)


def try_networks() -> None:
    """Try each way from each service, by addresses, since a name may be hidden where a route is not."""
    found = containers(*PORTS)
    targets = [
        (service, network["IPAddress"], PORTS[service])
        for container in found
        for service in [container["Config"]["Labels"]["com.docker.compose.service"]]
        for network in container["NetworkSettings"]["Networks"].values()
    ]
    for service, allowed in ROUTES.items():
        tried = compose("exec", "--no-TTY", service, "python", "-c", TRY_TARGETS, json.dumps(targets))
        result = json.loads(tried)
        require(result["reached"] == sorted(allowed), f"{service} reaches {result['reached']}, not {sorted(allowed)}")
        require(bool(result["gateways"]) == (service in APIS), f"{service} has {result['gateways']} ways out")


def stop(service: str) -> None:
    """Stop one container as `docker stop` does; it must end by itself, in time, with exit code 0."""
    container = containers(service)[0]
    started = time.monotonic()
    docker("stop", container["Id"])
    seconds = time.monotonic() - started
    state = containers(service)[0]["State"]
    require(state["ExitCode"] == 0, f"{service} ended with exit code {state['ExitCode']} after {seconds:.0f} s")
    grace = container["Config"]["StopTimeout"]
    print(f"{seconds:7.1f} s  docker stop {service} (grace {grace} s), exit code 0", flush=True)
    compose("up", "--detach", "--wait")


def kill_process(service: str) -> None:
    """Kill the process of one container; the engine must start it again, and it must become healthy."""
    before = containers(service)[0]
    # In the machine's namespace: in its own, no signal kills the first process.
    docker(
        *("run", "--rm", "--pid", "host", "--user", "0", "--entrypoint", "python", ENVIRONMENT["WALLET_IMAGE"]),
        *("-c", "import os, sys; os.kill(int(sys.argv[1]), 9)", str(before["State"]["Pid"])),
    )

    def is_back() -> bool:
        after = json.loads(docker("inspect", before["Id"]))[0]
        is_new: bool = after["RestartCount"] > before["RestartCount"]
        return is_new and after["State"].get("Health", {}).get("Status") == "healthy"

    with timed(f"{service}: its process was killed, and it is healthy again"):
        wait_until(is_back, f"{service} did not come back")


def kill_container(service: str) -> None:
    """Kill one container as an operator does. The engine leaves it dead; `up` brings it back."""
    docker("kill", containers(service)[0]["Id"])
    with timed(f"{service}: docker kill, then docker compose up --wait"):
        compose("up", "--detach", "--wait")


def attack(steps: Collection[str]) -> None:
    with timed("docker compose up --build --wait, from nothing"):
        compose("up", "--build", "--detach", "--wait")
    with timed("docker compose run walletctl keys create"):
        key = walletctl("keys", "create", "--name", "compose-test", "--scopes", SCOPES).strip()
    with timed("the demo, verified"):
        demo(key)
    with timed("each way through the networks tried"):
        try_networks()
    if "stop" in steps:
        for service in (*WORKERS, *APIS):
            with load(key, must_hold=service in WORKERS):
                stop(service)
        report = verified()
        require(report["horizon"]["topic_duplicates"] == 0, "a relay that was stopped left a batch half done")
        print("           verified: nothing was half done", flush=True)
    if "kill" in steps:
        for service in (*WORKERS, *APIS, *SERVERS):
            with load(key, must_hold=service in WORKERS):
                kill_process(service)
        verified()
        for service in (*WORKERS, *APIS, *SERVERS):
            kill_container(service)
        with timed("the demo, verified"):
            demo(key)
    verified()
    before = digest()
    with timed("docker compose down"):
        compose("down")
    with timed("docker compose up --wait"):
        compose("up", "--detach", "--wait")
    require(digest() == before, "down and up again changed the data")
    verified()
    with timed("the demo, verified"):
        demo(key)


def main() -> int:
    """Run the steps that the arguments name, or all: stop, kill."""
    subprocess.run([ROOT / "deploy" / "compose" / "make-secrets.sh"], check=True)
    try:
        with project(), timed("in all"):
            attack(sys.argv[1:] or ("stop", "kill"))
    except BrokenPromiseError as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    print("every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
