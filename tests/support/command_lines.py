"""The command line, run as its script runs it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from common.settings import PipelineSettings
from common.tables.roles import Role
from support.roles import ROLES
from walletctl.cli import main

_WALLET = "0" * 32
ARGUMENTS = {
    "db downgrade": ["--yes"],
    "history dead-letters prune": ["--older-than-days", "1"],
    "history dead-letters retry": ["--all"],
    "history dead-letters show": ["1"],
    "history rebuild": ["--yes"],
    "keys create": ["--name", "x", "--scopes", "wallets:read"],
    "keys revoke": ["x"],
    "keys rotate": ["x"],
    "keys show": ["x"],
    "outbox park": ["1", "--reason", "x"],
    "outbox replay": ["--all", "--yes"],
    "outbox retry": ["--all", "--yes"],
    "outbox show": ["1"],
    "outbox skip": ["1", "--reason", "x"],
    "restore begin": ["--yes"],
    "wallet close": [_WALLET, "--reason", "x"],
    "wallet freeze": [_WALLET, "--reason", "x"],
    "wallet history": [_WALLET],
    "wallet hold capture": [_WALLET, "--reason", "x"],
    "wallet hold list": [_WALLET],
    "wallet hold show": [_WALLET],
    "wallet hold void": [_WALLET, "--reason", "x"],
    "wallet ledger": [_WALLET],
    "wallet reopen": [_WALLET, "--reason", "x"],
    "wallet show": [_WALLET],
    "wallet statement": [_WALLET, "--from", "2026-01-01", "--to", "2026-01-02"],
    "wallet unfreeze": [_WALLET, "--reason", "x"],
    "stack demo": ["--against-env"],
}
"""What a command needs to begin its work without a question."""


@dataclass
class CommandResult:
    """How a command ended: its exit code and its output."""

    returncode: int
    stdout: str
    stderr: str


WalletCtl = Callable[..., CommandResult]
AsyncWalletCtl = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def walletctl(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> WalletCtl:
    """Run a command, in a thread, because the test may run an event loop."""

    def run(*arguments: str, **environment: str) -> CommandResult:
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as thread:
            patch.setattr(sys, "argv", ["walletctl", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            error = thread.submit(main).exception()
        assert isinstance(error, SystemExit), error
        output = capfd.readouterr()
        return CommandResult(int(error.code or 0), output.out, output.err)

    return run


def environment(settings: PipelineSettings, role: Role = Role.OPERATOR) -> dict[str, str]:
    """Return the variables with which a role runs commands on the pipeline."""
    return {
        "DATABASE_URL": ROLES.url(settings.database_url, role),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
    }


def printed(result: CommandResult) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def run_walletctl(walletctl: WalletCtl) -> AsyncWalletCtl:
    """Run a command beside the test's event loop; return its exit code and all that it printed."""

    async def run(*arguments: str, **environment: str) -> tuple[int, str]:
        done = await asyncio.to_thread(walletctl, *arguments, **environment)
        return done.returncode, done.stdout + done.stderr

    return run
