"""The roles, owners and privileges that a database has: compared with the declaration, and made as it says.

Objects and roles that the declaration does not name are left alone: an operator may add a role for backups, say.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.postgres.errors import INSUFFICIENT_PRIVILEGE, message_of, sqlstate
from common.postgres.grants import (
    PUBLIC,
    Names,
    Object,
    Privilege,
    grant_statements,
    objects_of,
    owner_name,
    owner_statement,
    quoted,
    role_statements,
    takeover_statement,
    wanted_privileges,
)
from common.postgres.lock_waits import Tell, lock_first, migrator
from common.postgres.migrations import SCHEMAS
from common.tables.roles import Grant, Role

_REMEDY: Final = (
    "have a superuser run walletctl db migrate once, or the SQL that walletctl db grants prints; or name existing "
    "roles by settings such as WALLET_API_ROLE"
)

# PostgreSQL manual, section 5.8: the owner is not among the grantees here. What it has, it can grant itself.
_PRIVILEGES: Final = text("""
    WITH objects AS (
        SELECT 'DATABASE' AS kind, '' AS name, '' AS part, datdba AS owner,
            coalesce(datacl, acldefault('d', datdba)) AS acl
        FROM pg_database WHERE datname = current_database()
        UNION ALL
        SELECT 'SCHEMA', nspname, '', nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%s.%s', nspname, relname), '', relowner,
            coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'TABLE', format('%s.%s', nspname, relname), attname, relowner, attacl
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE attacl IS NOT NULL
        UNION ALL
        SELECT 'FUNCTION', format('%s.%s(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)), '',
            proowner, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    )
    SELECT kind, name, part, coalesce(rolname, 'PUBLIC') AS grantee, privilege_type
    FROM objects CROSS JOIN aclexplode(acl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE grantee <> objects.owner AND (name = '' OR split_part(name, '.', 1) = ANY(:schemas))
""")

_OWNERS: Final = text("""
    SELECT 'DATABASE' AS kind, '' AS name, pg_get_userbyid(datdba) AS owner
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'SCHEMA', nspname, pg_get_userbyid(nspowner) FROM pg_namespace
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%s.%s', nspname, relname),
        pg_get_userbyid(relowner)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relkind IN ('r', 'p', 'S')
    UNION ALL
    SELECT 'FUNCTION', format('%s.%s(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)),
        pg_get_userbyid(proowner)
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
""")

_SCHEMAS: Final = text("SELECT nspname FROM pg_namespace WHERE nspname = ANY(:schemas)")

_MEMBER: Final = text("""
    SELECT coalesce(
        pg_has_role(to_regrole(:owner), to_regrole(:operator), 'SET')
        AND pg_has_role(to_regrole(:owner), to_regrole(:operator), 'USAGE'),
        false
    )
""")


class GrantsRefusedError(Exception):
    """The database's role may not make the roles or their privileges as declared. The message names the way out."""


class Differences(NamedTuple):
    """Where the catalogue is not as declared: objects of another owner, and privileges that are missing or too many."""

    not_member: bool
    not_owned: Sequence[Object]
    missing: Sequence[Privilege]
    extra: Sequence[Privilege]

    def objects(self) -> set[Object]:
        """Return the objects on which privileges differ."""
        return {Object(each.kind, each.name) for each in (*self.missing, *self.extra)}

    def lines(self) -> list[str]:
        """Return the differences in words."""
        return [
            *(["the owner isn't a member of the operator"] if self.not_member else []),
            *(f"{each} has another owner" for each in self.not_owned),
            *(f"{each.grantee} lacks {each}" for each in self.missing),
            *(f"{each.grantee} has {each}" for each in self.extra),
        ]


async def present_schemas(connection: AsyncConnection) -> list[str]:
    """Return which of the schemas this database has."""
    return list((await connection.execute(_SCHEMAS, {"schemas": list(SCHEMAS)})).scalars())


async def read_privileges(connection: AsyncConnection, schemas: Sequence[str]) -> set[Privilege]:
    """Return the privileges on the database, on these schemas and on all in them, but those of each object's owner."""
    rows = await connection.execute(_PRIVILEGES, {"schemas": list(schemas)})
    return {Privilege(*row) for row in rows}


async def find_differences(connection: AsyncConnection, names: Names) -> Differences:
    """Compare the catalogue with the declaration: for the declared objects, and the declared roles and PUBLIC."""
    schemas = await present_schemas(connection)
    declared = objects_of(schemas)
    grantees = {PUBLIC, *names.values()}
    found = {
        each
        for each in await read_privileges(connection, ["public", *schemas])
        if Object(each.kind, each.name) in declared and each.grantee in grantees
    }
    owners = {Object(kind, name): owner for kind, name, owner in await connection.execute(_OWNERS)}
    # An owner has every privilege on its object without a grant.
    wanted = {
        each for each in wanted_privileges(names, schemas) if each.grantee != owners.get(Object(each.kind, each.name))
    }
    not_owned = [each for each in declared if (owner := owner_name(each, names)) and owners.get(each) != owner]
    roles = {"owner": quoted(names[Role.OWNER]), "operator": quoted(names[Role.OPERATOR])}
    is_member = await connection.scalar(_MEMBER, roles)
    return Differences(not is_member, not_owned, sorted(wanted - found), sorted(found - wanted))


async def apply_grants(engine: AsyncEngine, names: Names, tell: Tell = lambda _: None) -> None:
    """Make this database's roles, owners and privileges as declared. Where they are, nothing is done.

    Raises:
        GrantsRefusedError: the database's role may not.
        LocksUnavailableError: other sessions held a lock for 60 seconds.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    try:
        async with migrator(engine, tell) as one:
            # Committed at once, so that migrators of other databases wait only for a moment.
            if await one.run(partial(_make_roles, names)):
                left = await one.run(partial(_make_as_declared, names))
            else:
                left = []
    except DBAPIError as error:
        if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            raise
        raise GrantsRefusedError(f"{message_of(error)}: {_REMEDY}") from error
    if left:
        raise GrantsRefusedError(f"{len(left)} privileges are not as declared, first: {left[0]}: {_REMEDY}")


async def _make_roles(names: Names, connection: AsyncConnection, _: Sequence[str]) -> bool:
    """Make missing roles, if anything differs; return whether something does."""
    async with connection.begin():
        differs = bool((await find_differences(connection, names)).lines())
        if differs:
            await _run(connection, role_statements(names))
    return differs


async def _make_as_declared(names: Names, connection: AsyncConnection, contended: Sequence[str]) -> list[str]:
    """Correct owners and privileges; return the differences that are left."""
    async with connection.begin():
        await _run(connection, [takeover_statement(names)])
        found = await find_differences(connection, names)
        declared = objects_of(await present_schemas(connection))
    # A schema's grants come first: a table's new owner needs CREATE on the schema.
    schemas = {each for each in found.objects() if each.kind == "SCHEMA"}
    for each in (each for each in declared if each in schemas or each in found.not_owned):
        # A new owner takes ACCESS EXCLUSIVE. No table stays locked while the next ones are given away.
        async with connection.begin():
            await connection.run_sync(lock_first, [table for table in contended if table == each.name])
            # A sequence goes with its table.
            statement = owner_statement(each, names) if each in found.not_owned else None
            owner = [statement] if statement else []
            await _run(connection, [*owner, *_grants(each, declared[each], names)])
    async with connection.begin():
        # Twice: a former owner's privileges become visible when the object has its new owner.
        for _ in range(2):
            for each in (await find_differences(connection, names)).objects() & declared.keys():
                await _run(connection, _grants(each, declared[each], names))
        return (await find_differences(connection, names)).lines()


def _grants(each: Object, granted: Sequence[Grant], names: Names) -> list[str]:
    return [statement for statement, _ in grant_statements(each, granted, names)]


async def _run(connection: AsyncConnection, statements: Iterable[str]) -> None:
    for statement in statements:
        await connection.exec_driver_sql(statement)
