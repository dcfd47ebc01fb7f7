"""Each command of an operator works as the operator's role, and the audit as the auditor's."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from common.settings import PipelineSettings
from common.tables.grants import OPERATORS_TABLES
from common.tables.roles import Role
from support.command_lines import CommandResult, WalletCtl, environment, printed
from support.databases import run_sql
from support.pipelines import tamper
from support.roles import Roles
from walletctl.console import Exit

Command = Callable[..., CommandResult]

DAMAGED = (
    "UPDATE wallet.outbox SET published_at = NULL, kafka_partition = NULL, kafka_offset = NULL WHERE id = 5",
    """
    INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, value, headers, reason, detail)
    SELECT 'topic', 0, number, 'x', convert_to('[]', 'UTF8'), '[]', 'wrong-shape', ''
    FROM generate_series(1, 3) AS number
    """,
)
FUND = "SELECT transaction_id FROM wallet.wallet_transactions WHERE type = 'FUND' AND currency = 'JPY' LIMIT 1"


@pytest.fixture
def as_role(walletctl: WalletCtl, settings: PipelineSettings, roles: Roles) -> Command:
    def run(role: Role, *arguments: str) -> CommandResult:
        variables = environment(settings)
        return walletctl(*arguments, **{**variables, "DATABASE_URL": roles.url(variables["DATABASE_URL"], role)})

    return run


async def fund_of(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval(FUND))
    finally:
        await connection.close()


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.OPERATOR])
def test_auditor_and_operator_verify_the_pipeline(as_role: Command, role: Role) -> None:
    done = as_role(role, "verify", "--json")
    assert done.returncode == Exit.OK, done.stderr
    assert printed(done)["ok"] is True


def test_the_operator_runs_every_command_on_wallets_outbox_and_history(
    as_role: Command, settings: PipelineSettings
) -> None:
    asyncio.run(tamper(settings.database_url, *DAMAGED))
    wallet = printed(as_role(Role.OPERATOR, "outbox", "show", "5", "--json"))["wallet_id"]
    reversible = asyncio.run(fund_of(settings.database_url.read()))
    expected = {
        "db status": Exit.OK,
        f"wallet show {wallet}": Exit.OK,
        f"wallet ledger {wallet}": Exit.OK,
        f"wallet history {wallet}": Exit.OK,
        f"wallet hold list {wallet}": Exit.OK,
        f"wallet statement {wallet} --from 2026-01-01 --to 2026-01-02": Exit.OK,
        f"wallet freeze {wallet} --reason test": Exit.OK,
        f"wallet unfreeze {wallet} --reason test": Exit.OK,
        f"wallet close {wallet} --reason test": Exit.OK,
        f"wallet reopen {wallet} --reason test": Exit.OK,
        f"transaction show {reversible}": Exit.OK,
        f"transaction reverse {reversible} --reason test": Exit.OK,
        "outbox status": Exit.OK,
        "outbox list": Exit.OK,
        "outbox show 5": Exit.OK,
        "outbox park 5 --reason test": Exit.OK,
        "outbox skip 5 --reason test": Exit.OK,
        "outbox park 1 --reason test": Exit.FOUND_WRONG,
        "outbox replay --all --reason test": Exit.OK,
        "outbox park 6 --reason test": Exit.OK,
        "outbox retry 6": Exit.OK,
        "outbox prune": Exit.OK,
        "history status": Exit.FOUND_WRONG,
        "history dead-letters list": Exit.OK,
        "history dead-letters show 1": Exit.OK,
        "history dead-letters retry 1": Exit.FOUND_WRONG,
        "history dead-letters prune --older-than-days 0": Exit.OK,
        "keys create --name test --scopes wallets:read": Exit.OK,
        "keys list": Exit.OK,
        "keys rotate forTestsOnly": Exit.OK,
        "keys show forTestsOnly": Exit.OK,
        "keys revoke forTestsOnly": Exit.OK,
        "restore begin --yes": Exit.OK,
        "restore lost": Exit.OK,
        "history rebuild --yes": Exit.OK,
    }
    found = {command: as_role(Role.OPERATOR, *command.split()) for command in expected}
    refused = [done.stderr for done in found.values() if "refuses" in done.stderr]
    assert refused == []
    assert {command: Exit(done.returncode) for command, done in found.items()} == expected


ACCESS = """
    SELECT relname, pg_get_userbyid(relowner), ARRAY(SELECT unnest(relacl)::text ORDER BY 1),
        ARRAY(
            SELECT attname || attacl::text FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attacl IS NOT NULL ORDER BY 1
        )
    FROM pg_class WHERE relname = ANY($1) ORDER BY relname
"""


async def access(url: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(ACCESS, [name.split(".")[1] for name in OPERATORS_TABLES])]
    finally:
        await connection.close()


def test_rebuilt_tables_have_the_owner_and_the_privileges_of_those_before(
    as_role: Command, settings: PipelineSettings, roles: Roles
) -> None:
    url = settings.database_url.read()
    before = asyncio.run(access(url))
    assert {row[1] for row in before} == {roles.names[Role.OPERATOR]}
    for _ in range(2):
        assert as_role(Role.OPERATOR, "history", "rebuild", "--yes").returncode == Exit.OK
        assert asyncio.run(access(url)) == before
    # The owner, who migrates, may still alter them.
    as_owner = roles.url(url, Role.OWNER)
    asyncio.run(run_sql(as_owner, "ALTER TABLE history.wallet_progress ADD COLUMN more text"))


def test_the_operator_does_not_migrate(as_role: Command) -> None:
    done = as_role(Role.OPERATOR, "db", "migrate")
    assert done.returncode == Exit.USAGE
    assert "permission denied" in done.stderr
