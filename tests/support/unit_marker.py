"""A pytest plugin for `make unit`: it marks the tests that need no server as `unit`, and holds them to it.

A marked test that starts a process or opens a port fails. So a test that changes cannot stay a unit test unnoticed.
"""

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

SERVER_FIXTURES = frozenset({"postgres_url", "kafka_bootstrap_servers", "guarded"})
"""Every fixture with a server behind it requests one of these, directly or through other fixtures."""

NOT_UNIT = (
    "acceptance",
    "benchmarks/test_load.py",
    "common/access/test_key_sources.py",
    "common/http/test_connections.py",
    "common/http/test_http.py",
    "common/http/test_protocol.py",
    "common/postgres/test_connections.py",
    "common/test_failpoints.py",
    "common/test_logs.py",
    "common/test_worker.py",
    "deploy/test_image.py",
    "deploy/test_kubectl.py",
    "deploy/test_release.py",
    "faults",
    "mutants",
    "tools/test_servers.py",
    "tools/test_unit_marker.py",
    "upgrades",
    "walletctl/demo",
    "walletctl/stack",
    "walletctl/test_failures.py",
    "walletctl/test_hidden_secrets.py",
    "walletctl/test_streams.py",
)
"""Below `tests/`: what starts processes or opens ports without such a fixture."""

_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "pty.spawn"})
_is_unit_running = False

settings.register_profile(
    "unit",
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _refuse_servers(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what a unit test may not do; Python's documentation, "Audit events table", has the names."""
    if _is_unit_running and (event in _STARTS or (event == "socket.bind" and args[0].family != socket.AF_UNIX)):
        raise RuntimeError(f"a unit test may not cause {event}: name its file in tests/support/unit_marker.py")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, since marks are strict, and audit what tests do."""
    config.addinivalue_line("markers", "unit: needs no server; `make unit` runs these")
    sys.addaudithook(_refuse_servers)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what requests no server fixture and is not listed."""
    others = [config.rootpath / "tests" / name for name in NOT_UNIT]
    for item in items:
        # pytest puts the whole closure here: also what the requested fixtures request.
        needs_server = not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if not needs_server and not any(item.path.is_relative_to(other) for other in others):
            item.add_marker("unit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold a unit test to it while it runs."""
    global _is_unit_running  # noqa: PLW0603 - an audit hook is for the whole process
    _is_unit_running = item.get_closest_marker("unit") is not None
    try:
        return (yield)
    finally:
        _is_unit_running = False
