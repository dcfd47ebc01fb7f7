"""Operators' commands under a user without a name, as in OpenShift and Kubernetes: done wholly, or not at all."""

import os
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import text

from common.postgres.engine import operator_engine
from common.secrets import Secret
from common.settings import PipelineSettings
from support.command_lines import environment as variables
from support.pipelines import tamper
from walletctl.console import Exit

NAMELESS_UID = 12_345
# Only the real user has no name. The effective user stays, because another could not read the installed packages.
AS_NAMELESS = f"""
import os
os.setresuid({NAMELESS_UID}, 0, 0)
from walletctl.cli import main
main()
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


def run(settings: PipelineSettings, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command as a user who is missing from the password database."""
    command = [sys.executable, "-c", AS_NAMELESS, *arguments]
    return subprocess.run(command, env={**environment, **variables(settings)}, capture_output=True, check=False)


async def fetch(url: Secret | str, query: str) -> list[Any]:
    async with operator_engine(url) as engine, engine.connect() as connection:
        return list((await connection.execute(text(query))).scalars())


@pytest.mark.parametrize(
    ("arguments", "environment", "actor"),
    [
        (["outbox", "replay", "--all", "--yes"], {}, f"uid {NAMELESS_UID}"),
        (["outbox", "prune", "--older-than-days", "30"], {"OPERATOR": "on-call"}, "on-call"),
        (["outbox", "replay", "--all", "--yes"], {"USER": "ada"}, "ada"),
    ],
    ids=str,
)
async def test_the_audit_names_a_user_without_a_name(
    settings: PipelineSettings, arguments: list[str], environment: dict[str, str], actor: str
) -> None:
    done = run(settings, *arguments, **environment)
    assert (done.returncode, done.stderr) == (Exit.OK, b"")
    assert await fetch(settings.database_url, "SELECT actor FROM wallet.outbox_audit") == [actor]


async def test_parked_rows_are_handled_by_a_user_without_a_name(settings: PipelineSettings) -> None:
    unpublished = "published_at = NULL, kafka_partition = NULL, kafka_offset = NULL"
    await tamper(settings.database_url, f"UPDATE wallet.outbox SET {unpublished}")
    (row_id,) = await fetch(settings.database_url, "SELECT min(id) FROM wallet.outbox")
    for arguments in (["park"], ["skip"]):
        assert run(settings, "outbox", *arguments, str(row_id), "--reason", "x").returncode == Exit.OK
    await tamper(settings.database_url, "UPDATE wallet.outbox SET parked_at = now() WHERE parked_at IS NULL")
    assert run(settings, "outbox", "retry", "--all", "--yes").returncode == Exit.OK
    audit = "SELECT DISTINCT actor FROM wallet.outbox_audit"
    assert await fetch(settings.database_url, audit) == [f"uid {NAMELESS_UID}"]


async def test_an_epoch_begins_for_a_user_without_a_name(settings: PipelineSettings) -> None:
    done = run(settings, "restore", "begin", "--yes")
    assert (done.returncode, done.stderr) == (Exit.OK, b"")
    actors = await fetch(settings.database_url, "SELECT actor FROM wallet.source_epochs ORDER BY epoch DESC LIMIT 1")
    assert actors == [f"uid {NAMELESS_UID}"]
