"""Each role may do what the declaration says, and nothing else: by the catalogue, and tried as the role."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.grants import PUBLIC, Object, grants_script, objects_of, wanted_privileges
from common.postgres.migrations import SCHEMAS, migrate
from common.postgres.privileges import GrantsRefusedError, apply_grants, find_differences, read_privileges
from common.tables import grants
from common.tables.grants import FUNCTIONS
from common.tables.roles import Role
from support.databases import Databases, migrate_all, run_sql
from support.roles import Roles, new_roles

PROCESSES = [role for role in Role if role is not Role.OWNER]


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def granted_url(databases: Databases, roles: Roles) -> Iterator[str]:
    """A database that these tests do not change. A clone has no privileges on the database itself: they are granted."""
    url = databases.clone()
    asyncio.run(roles.grant(url))
    yield url
    databases.drop(url)


@pytest.fixture
async def untouched(granted_url: str) -> AsyncIterator[AsyncConnection]:
    """A connection to it."""
    engine = create_engine(granted_url, "tests")
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@pytest.fixture
async def granted(engine: AsyncEngine, roles: Roles) -> AsyncEngine:
    """A fresh database whose privileges the test may change."""
    await apply_grants(engine, roles.names)
    return engine


@pytest.fixture
async def new_server_roles(postgres_url: str) -> AsyncIterator[Callable[[], Roles]]:
    """Return roles that do not exist yet; those that the test made are dropped at the end, with all that they have."""
    made: list[Roles] = []

    def make() -> Roles:
        made.append(new_roles())
        return made[-1]

    yield make
    for roles in made:
        await run_sql(postgres_url, *(f"DROP ROLE IF EXISTS {name}" for name in roles.names.values()))


async def test_the_catalogue_grants_exactly_what_is_declared(untouched: AsyncConnection, roles: Roles) -> None:
    found = await read_privileges(untouched, ["public", *SCHEMAS])
    assert sorted(found) == sorted(wanted_privileges(roles.names, SCHEMAS))
    assert (await find_differences(untouched, roles.names)).lines() == []


OBJECTS = text("""
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%s.%s', nspname, relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ANY(:schemas) AND relkind NOT IN ('i', 'I', 't', 'c')
    UNION ALL
    SELECT 'FUNCTION', format('%s.%s(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid))
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = ANY(:schemas)
    UNION ALL
    SELECT 'SCHEMA', nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
""")


async def test_every_object_is_declared_and_public_is_empty(untouched: AsyncConnection) -> None:
    rows = await untouched.execute(OBJECTS, {"schemas": ["public", *SCHEMAS]})
    declared = [each for each in objects_of(SCHEMAS) if each.kind != "DATABASE"]
    assert sorted(Object(*row) for row in rows) == sorted(declared)


async def test_no_default_privileges_wait_for_future_tables(untouched: AsyncConnection) -> None:
    assert await untouched.scalar(text("SELECT count(*) FROM pg_default_acl")) == 0


async def test_each_function_runs_as_its_caller_with_a_path_of_its_own(untouched: AsyncConnection) -> None:
    functions = "SELECT prosecdef, proconfig FROM pg_proc WHERE pronamespace = to_regnamespace('wallet')"
    rows = (await untouched.execute(text(functions))).all()
    assert [tuple(row) for row in rows] == [(False, ["search_path=pg_catalog, pg_temp"])] * len(FUNCTIONS)


COLUMNS = text("""
    SELECT format('%s.%s', table_schema, table_name), array_agg(column_name::text)
    FROM information_schema.columns WHERE table_schema = ANY(:schemas) GROUP BY 1
""")


async def is_refused(connection: asyncpg.Connection, statement: str) -> bool:
    """Whether the role lacks the privilege. Any other error comes later: the statement was allowed."""
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    except asyncpg.PostgresError:
        return False
    return False


def attempts(table: str, columns: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield a column, a privilege and a statement that needs it, which changes nothing."""
    for column in columns:
        yield column, "SELECT", f'SELECT "{column}" FROM {table} WHERE false'
        yield column, "INSERT", f'INSERT INTO {table} ("{column}") OVERRIDING SYSTEM VALUE SELECT NULL WHERE false'
        yield column, "UPDATE", f'UPDATE {table} SET "{column}" = DEFAULT WHERE false'
    yield "", "DELETE", f"DELETE FROM {table} WHERE false"
    yield "", "TRUNCATE", f"TRUNCATE {table}"
    yield "", "TRIGGER", f"ALTER TABLE {table} DISABLE TRIGGER USER"


@pytest.mark.parametrize("role", PROCESSES)
async def test_each_role_can_do_what_it_may_and_is_refused_all_else(
    untouched: AsyncConnection, granted_url: str, roles: Roles, role: Role
) -> None:
    columns = {row[0]: row[1] for row in await untouched.execute(COLUMNS, {"schemas": list(SCHEMAS)})}
    assert sorted(columns) == sorted(grants.TABLES)
    allowed = {
        (table, column, grant.privilege)
        for table, granted in grants.TABLES.items()
        for grant in granted
        for column in grant.columns or ("", *columns[table])
        if grant.role is role
    }
    owned = grants.OPERATORS_TABLES if role is Role.OPERATOR else ()
    async with session(roles.url(granted_url, role)) as connection:
        wrong = [
            statement
            for table, names in columns.items()
            for column, privilege, statement in attempts(table, names)
            if table not in owned and await is_refused(connection, statement) == ((table, column, privilege) in allowed)
        ]
    assert wrong == []


FORBIDDEN_TO_ALL = {
    "disable a trigger": "ALTER TABLE wallet.wallet_transactions DISABLE TRIGGER ALL",
    "skip all triggers": "SET session_replication_role = replica",
    "truncate the ledger": "TRUNCATE wallet.wallet_transactions",
    "change the ledger": "UPDATE wallet.wallet_transactions SET amount_minor = 1",
    "delete from the ledger": "DELETE FROM wallet.wallet_transactions",
    "delete a wallet": "DELETE FROM wallet.wallets",
    "replace a function": "CREATE OR REPLACE FUNCTION wallet.refuse_change() RETURNS trigger LANGUAGE sql AS ''",
    "create a table": "CREATE TABLE wallet.mine ()",
    "create a table in public": "CREATE TABLE public.mine ()",
    "create a temporary table": "CREATE TEMPORARY TABLE mine ()",
    "create a schema": "CREATE SCHEMA mine",
    "change a table": "ALTER TABLE wallet.wallets DROP COLUMN status",
    "drop a table": "DROP TABLE wallet.outbox",
    "create an index": "CREATE INDEX ON wallet.wallets (status)",
    "take an id": "SELECT nextval('wallet.outbox_audit_id_seq')",
    "set a sequence": "SELECT setval('history.dead_letters_id_seq', 1)",
    "change the revision": "UPDATE wallet.alembic_version SET version_num = ''",
    "change the audit": "UPDATE wallet.outbox_audit SET actor = ''",
    "delete from the audit": "DELETE FROM wallet.outbox_audit",
    "change the audit of keys": "UPDATE wallet.api_key_audit SET actor = ''",
    "give a key more scopes": "UPDATE wallet.api_keys SET scopes = '{ops:write}'",
    "delete a key": "DELETE FROM wallet.api_keys",
    "become the owner": "SET ROLE {owner}",
    "make a role": "CREATE ROLE mine",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'true'",
}
FORBIDDEN = {
    Role.API: {
        "settle an event": "UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = 0",
        "write a published event": "INSERT INTO wallet.outbox (published_at) VALUES (now())",
        "read the outbox": "SELECT payload FROM wallet.outbox",
        "read the history": "SELECT FROM history.transaction_events",
        "create a wallet with a balance": "INSERT INTO wallet.wallets (balance_minor) VALUES (1)",
        "give a wallet to another user": "UPDATE wallet.wallets SET user_id = ''",
        "make a key": "INSERT INTO wallet.api_keys (id) VALUES ('')",
        "make a revoked key valid": "UPDATE wallet.api_keys SET revoked_at = NULL",
    },
    Role.RELAY: {
        "read a wallet": "SELECT user_id FROM wallet.wallets",
        "read the ledger": "SELECT FROM wallet.wallet_transactions",
        "read a reply": "SELECT reply_body FROM wallet.idempotency_keys",
        "change an event": "UPDATE wallet.outbox SET payload = '{}'",
        "change a balance": "UPDATE wallet.wallets SET balance_minor = 1",
        "read the keys": "SELECT FROM wallet.api_keys",
    },
    Role.CONSUMER: {
        "read the keys": "SELECT FROM wallet.api_keys",
        "read a wallet": "SELECT FROM wallet.wallets",
        "change an event": "UPDATE history.transaction_events SET amount_minor = 1",
        "delete an event": "DELETE FROM history.transaction_events",
    },
    Role.READER: {
        "read a wallet": "SELECT FROM wallet.wallets",
        "read the positions": "SELECT FROM history.processed_offsets",
        "change an event": "UPDATE history.transaction_events SET amount_minor = 1",
    },
    Role.OPERATOR: {
        "change a wallet's user": "UPDATE wallet.wallets SET user_id = 'eve'",
        "change an entry": "UPDATE wallet.wallet_transactions SET amount_minor = 1",
        "change an event": "UPDATE wallet.outbox SET payload = '{}'",
        "change the audit": "UPDATE wallet.wallet_audit SET actor = ''",
    },
    Role.AUDITOR: {
        "write": "INSERT INTO wallet.outbox_audit (actor) VALUES ('')",
        "lock": "SELECT FROM wallet.wallets FOR UPDATE",
    },
}


@pytest.mark.parametrize("role", PROCESSES)
async def test_no_process_may_do_harm(granted_url: str, roles: Roles, role: Role) -> None:
    async with session(roles.url(granted_url, role)) as connection:
        done = [
            what
            for what, statement in (FORBIDDEN_TO_ALL | FORBIDDEN[role]).items()
            if not await is_refused(connection, statement.replace("{owner}", roles.names[Role.OWNER]))
        ]
    assert done == []


@pytest.mark.parametrize(
    "change", ["UPDATE wallet.wallet_transactions SET entry = 1", "DELETE FROM wallet.wallet_transactions"]
)
async def test_the_owner_is_refused_changes_of_the_ledger_too(granted_url: str, roles: Roles, change: str) -> None:
    async with session(roles.url(granted_url, Role.OWNER)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(change)


async def differences(engine: AsyncEngine, roles: Roles) -> list[str]:
    async with engine.connect() as connection:
        return (await find_differences(connection, roles.names)).lines()


async def test_a_grant_too_many_or_too_few_and_a_wrong_owner_are_corrected(granted: AsyncEngine, roles: Roles) -> None:
    api = roles.names[Role.API]
    async with granted.begin() as connection:
        for statement in (
            f"GRANT UPDATE (published_at) ON wallet.outbox TO {api}",
            f"REVOKE SELECT ON wallet.wallets FROM {api}",
            "GRANT SELECT ON wallet.wallets TO PUBLIC",
            "GRANT USAGE, CREATE ON SCHEMA public TO PUBLIC",
            "ALTER TABLE wallet.outbox_lanes OWNER TO CURRENT_USER",
            f"REVOKE {roles.names[Role.OPERATOR]} FROM {roles.names[Role.OWNER]}",
        ):
            await connection.execute(text(statement))
    assert await differences(granted, roles) == [
        "the owner isn't a member of the operator",
        "wallet.outbox_lanes has another owner",
        f"{api} lacks SELECT on wallet.wallets",
        f"{PUBLIC} has CREATE on public",
        f"{PUBLIC} has USAGE on public",
        f"{api} has UPDATE (published_at) on wallet.outbox",
        f"{PUBLIC} has SELECT on wallet.wallets",
    ]
    await apply_grants(granted, roles.names)
    assert await differences(granted, roles) == []


async def test_privileges_of_other_roles_stay_as_they_are(granted: AsyncEngine, roles: Roles) -> None:
    async with granted.begin() as connection:
        await connection.execute(text("GRANT SELECT ON wallet.wallets TO pg_monitor"))
        await connection.execute(text(f"REVOKE SELECT ON wallet.wallets FROM {roles.names[Role.API]}"))
    await apply_grants(granted, roles.names)
    async with granted.connect() as connection:
        assert await connection.scalar(text("SELECT has_table_privilege('pg_monitor', 'wallet.wallets', 'SELECT')"))


async def test_applied_again_the_grants_write_nothing(granted: AsyncEngine, roles: Roles) -> None:
    versions = text("SELECT oid, xmin FROM pg_class UNION ALL SELECT oid, xmin FROM pg_namespace ORDER BY 1")
    async with granted.connect() as connection:
        before = (await connection.execute(versions)).all()
    await apply_grants(granted, roles.names)
    async with granted.connect() as connection:
        assert (await connection.execute(versions)).all() == before


async def test_missing_roles_are_made_once_by_migrators_of_several_databases_at_once(
    new_database: Callable[[str | None], str], template: str, new_server_roles: Callable[[], Roles]
) -> None:
    roles = new_server_roles()
    engines = [create_engine(new_database(template), "tests") for _ in range(4)]
    await asyncio.gather(*(apply_grants(engine, roles.names) for engine in engines for _ in range(2)))
    found = [await differences(engine, roles) for engine in engines]
    for engine in engines:
        async with engine.begin() as connection:
            for name in roles.names.values():
                await connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
                await connection.execute(text(f"DROP OWNED BY {name}"))
        await engine.dispose()
    assert found == [[]] * 4


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(url, "tests")
    try:
        yield engine
    finally:
        await engine.dispose()


async def forget(url: str, roles: Roles) -> None:
    """Take all that the roles have in this database, so that they can be dropped."""
    names = ", ".join(roles.names.values())
    await run_sql(url, f"REASSIGN OWNED BY {names} TO CURRENT_USER", f"DROP OWNED BY {names}")


async def test_the_owner_migrates_an_empty_database_after_a_superuser_has_run_the_first_part_of_the_script(
    empty_database_url: str, new_server_roles: Callable[[], Roles]
) -> None:
    roles = new_server_roles()
    first = [statement for statement, _ in grants_script(roles.names, SCHEMAS, with_tables=False)]
    await run_sql(empty_database_url, *first, *roles.login_statements())
    as_owner = roles.url(empty_database_url, Role.OWNER)
    for _ in range(2):
        await migrate_all(as_owner)
        await roles.grant(as_owner)
    async with opened(empty_database_url) as engine:
        found = await differences(engine, roles)
    await forget(empty_database_url, roles)
    assert found == []


async def test_the_whole_script_makes_what_migrate_makes_and_may_be_repeated(
    new_database: Callable[[str | None], str], template: str, new_server_roles: Callable[[], Roles]
) -> None:
    roles, url = new_server_roles(), new_database(template)
    for _ in range(2):
        await run_sql(url, *(statement for statement, _ in grants_script(roles.names, SCHEMAS)))
    async with opened(url) as engine:
        found = await differences(engine, roles)
    await forget(url, roles)
    assert found == []


async def test_tables_of_another_owner_move_to_the_owner(
    empty_database_url: str, roles: Roles, new_server_roles: Callable[[], Roles]
) -> None:
    """An installation as it was before there were roles: one role owns the database and everything in it."""
    before = new_server_roles()
    app = before.names[Role.API]
    await run_sql(
        empty_database_url, *before.login_statements(create=[Role.API]), f"GRANT ALL ON SCHEMA public TO {app}"
    )
    name = make_url(empty_database_url).database
    await run_sql(empty_database_url, f'ALTER DATABASE "{name}" OWNER TO {app}')
    await migrate_all(before.url(empty_database_url, Role.API))
    async with opened(before.url(empty_database_url, Role.API)) as engine:
        with pytest.raises(GrantsRefusedError, match="walletctl db grants"):
            await apply_grants(engine, roles.names)
    await roles.grant(empty_database_url)
    async with opened(empty_database_url) as engine:
        found = await differences(engine, roles)
    await run_sql(empty_database_url, f"REASSIGN OWNED BY {app} TO CURRENT_USER", f"DROP OWNED BY {app}")
    assert found == []


async def test_roles_that_share_a_name_have_the_privileges_of_all(
    new_database: Callable[[str | None], str], template: str, new_server_roles: Callable[[], Roles]
) -> None:
    one = new_server_roles()
    shared = Roles(dict.fromkeys(Role, one.names[Role.API]), one.password)
    url = new_database(template)
    await shared.grant(url)
    async with opened(url) as engine:
        found = await differences(engine, shared)
        await apply_grants(engine, shared.names)
    await forget(url, shared)
    assert found == []


async def test_a_history_in_a_database_of_its_own_lets_in_only_its_roles(empty_database_url: str, roles: Roles) -> None:
    async with opened(empty_database_url) as engine:
        await migrate(engine, "history")
        await apply_grants(engine, roles.names)
        assert await differences(engine, roles) == []
    for role in (Role.API, Role.RELAY):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
            await asyncpg.connect(roles.url(empty_database_url, role))
