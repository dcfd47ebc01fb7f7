"""`walletctl db migrate` makes the roles and their privileges, or says who must; `db grants` prints their SQL."""

import asyncio

import asyncpg
import pytest

from common.tables.roles import Role
from support.command_lines import WalletCtl, printed
from support.databases import run_sql
from support.roles import Roles, new_roles
from walletctl.console import Exit


def test_migrate_gives_each_role_its_privileges_and_a_second_run_changes_nothing(
    walletctl: WalletCtl, empty_database_url: str, roles: Roles
) -> None:
    for _ in range(2):
        done = walletctl("db", "migrate", DATABASE_URL=empty_database_url, **roles.environment)
        assert done.returncode == Exit.OK, done.stderr
    connection = roles.url(empty_database_url, Role.API)
    asyncio.run(run_sql(connection, "SELECT count(*) FROM wallet.wallets"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(run_sql(connection, "SELECT count(*) FROM history.wallet_progress"))


def test_where_migrate_may_not_make_the_roles_one_line_says_who_can(
    walletctl: WalletCtl, empty_database_url: str, roles: Roles
) -> None:
    owner = roles.names[Role.OWNER]
    name = empty_database_url.rsplit("/", 1)[1]
    asyncio.run(run_sql(empty_database_url, f'ALTER DATABASE "{name}" OWNER TO {owner}'))
    missing = new_roles()
    environment = missing.environment | {"WALLET_OWNER_ROLE": owner}
    done = walletctl("db", "migrate", DATABASE_URL=roles.url(empty_database_url, Role.OWNER), **environment)
    assert done.returncode == Exit.USAGE
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("warning: "))
    assert "permission denied to create role" in line
    assert "walletctl db grants" in line
    assert "WALLET_API_ROLE" in line


def test_the_printed_sql_does_what_migrate_does_to_the_roles(
    walletctl: WalletCtl, database_url: str, roles: Roles
) -> None:
    statements = printed(walletctl("db", "grants", "--json", **roles.environment))["statements"]
    asyncio.run(run_sql(database_url, "GRANT ALL ON ALL TABLES IN SCHEMA wallet TO PUBLIC", *statements))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(run_sql(roles.url(database_url, Role.READER), "SELECT FROM wallet.wallets"))


@pytest.mark.parametrize(
    ("options", "has", "has_not"),
    [
        (["--before-migrate"], ["CREATE ROLE", "SCHEMA public"], ["wallet.wallets", "SCHEMA wallet"]),
        (["--schema", "history"], ["history.dead_letters"], ["wallet.wallets"]),
        ([], ["GRANT SELECT ON TABLE wallet.wallets TO wallet_api; -- reads"], []),
    ],
    ids=["before migrate", "one schema", "all"],
)
def test_a_part_of_the_sql_can_be_printed(
    walletctl: WalletCtl, options: list[str], has: list[str], has_not: list[str]
) -> None:
    script = walletctl("db", "grants", *options).stdout
    assert all(part in script for part in has)
    assert not any(part in script for part in has_not)


@pytest.mark.parametrize("name", ['a"b', "a'b", "a b", "x" * 64, "$$"])
def test_a_name_that_sql_text_could_not_hold_is_refused(walletctl: WalletCtl, name: str) -> None:
    done = walletctl("db", "grants", WALLET_API_ROLE=name)
    assert done.returncode == Exit.USAGE
    assert "WALLET_API_ROLE" in done.stderr


def test_a_dry_run_tells_what_would_be_migrated_and_changes_nothing(
    walletctl: WalletCtl, empty_database_url: str, roles: Roles
) -> None:
    planned = walletctl("db", "migrate", "--dry-run", DATABASE_URL=empty_database_url, **roles.environment)
    assert planned.returncode == Exit.OK
    assert planned.stdout.splitlines()[0].startswith("would migrate wallet_0001: Wallets")
    before = walletctl("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert before.returncode == Exit.FOUND_WRONG
    pending = [row["pending"] for row in printed(before)["schemas"]]
    assert len(planned.stdout.splitlines()) == sum(map(len, pending)) > 1
    assert walletctl("db", "migrate", DATABASE_URL=empty_database_url, **roles.environment).returncode == Exit.OK
    assert walletctl("db", "status", DATABASE_URL=empty_database_url).returncode == Exit.OK
    planned = walletctl("db", "migrate", "--dry-run", DATABASE_URL=empty_database_url, **roles.environment)
    assert planned.stdout == "nothing to migrate\n"


def test_migrate_leaves_a_schema_and_grants_of_a_newer_version_alone_so_that_a_roll_back_succeeds(
    walletctl: WalletCtl, database_url: str, roles: Roles
) -> None:
    asyncio.run(
        run_sql(
            database_url,
            "UPDATE wallet.alembic_version SET version_num = 'wallet_9999'",
            f'GRANT DELETE ON wallet.wallets TO "{roles.names[Role.API]}"',
        )
    )
    done = walletctl("db", "migrate", DATABASE_URL=database_url, **roles.environment)
    assert done.returncode == Exit.OK
    assert "newer version" in done.stderr
    assert "wallet_9999" in done.stderr
    asyncio.run(run_sql(roles.url(database_url, Role.API), "DELETE FROM wallet.wallets"))
    assert walletctl("db", "status", DATABASE_URL=database_url).returncode == Exit.OK
