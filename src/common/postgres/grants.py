"""The SQL of the declaration `common.tables.grants`, for roles of any names. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy.dialects import postgresql

from common.tables import grants
from common.tables.roles import Grant, Role

PUBLIC: Final = "PUBLIC"
"""The grantee that stands for every role."""

Names = Mapping[Role, str]
"""The name of each role in the server. Several roles may have the same name: it then has the privileges of all."""

USUAL_NAMES: Final[Names] = {role: role.value for role in Role}

quoted = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]


class Object(NamedTuple):
    """An object in the database: `kind` as GRANT names it. The database itself has no name here."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return self.name or "the database"


class Privilege(NamedTuple):
    """A privilege on an object, or on one of its columns."""

    kind: str
    name: str
    column: str
    grantee: str
    privilege: str

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.privilege}{column} on {Object(self.kind, self.name)}"


def objects_of(schemas: Sequence[str]) -> dict[Object, Sequence[Grant]]:
    """Return the declared objects of a database that has these schemas, with the privileges on each."""
    parts = {"SCHEMA": grants.SCHEMAS, "TABLE": grants.TABLES, "SEQUENCE": grants.SEQUENCES}
    found = {
        Object(kind, name): granted
        for kind, declared in parts.items()
        for name, granted in declared.items()
        if name.split(".")[0] in schemas
    }
    functions = {Object("FUNCTION", name): () for name in grants.FUNCTIONS if name.split(".")[0] in schemas}
    roles = {Role.OWNER} | {grant.role for granted in found.values() for grant in granted}
    database = [grant for grant in grants.DATABASE if grant.role in roles]
    return {Object("DATABASE"): database, Object("SCHEMA", "public"): (), **found, **functions}


def owner_of(each: Object) -> Role | None:
    """Return the role that owns the object; None if its creator may keep it."""
    if each.kind == "DATABASE" or each.name == "public":
        return None
    return Role.OPERATOR if each.name in grants.OPERATORS_TABLES else Role.OWNER


def wanted_privileges(names: Names, schemas: Sequence[str]) -> set[Privilege]:
    """Return all privileges that the declaration grants in a database that has these schemas."""
    return {
        Privilege(*each, column, names[grant.role], grant.privilege)
        for each, granted in objects_of(schemas).items()
        for grant in granted
        for column in grant.columns or ("",)
        if names[grant.role] != owner_name(each, names)
    }


def role_statements(names: Names) -> Iterator[str]:
    """Yield the SQL that makes missing roles, and the memberships. They concern all databases of the server."""
    for name in dict.fromkeys(names.values()):
        # Another database's migrator may make the same role at the same moment.
        yield (
            f"DO $$ BEGIN IF to_regrole('{quoted(name)}') IS NULL THEN CREATE ROLE {quoted(name)} NOLOGIN; END IF; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    yield _membership(names[Role.OPERATOR], quoted(names[Role.OWNER]), f"'{names[Role.OWNER]}'")


def _membership(role: str, member: str, member_name: str) -> str:
    missing = " OR ".join(f"NOT pg_has_role({member_name}, '{role}', '{what}')" for what in ("SET", "USAGE"))
    return f"DO $$ BEGIN IF {missing} THEN GRANT {quoted(role)} TO {member}; END IF; END $$"


def takeover_statement(names: Names) -> str:
    """Return the SQL by which a migrator that made the roles becomes a member of the owner, to give it the objects."""
    return _membership(names[Role.OWNER], "CURRENT_USER", "current_user")


def owner_statement(each: Object, names: Names) -> str | None:
    """Return the SQL that gives the object to its owner; None if it may keep its owner, or goes with its table."""
    owner = owner_name(each, names)
    if owner is None or each.kind == "SEQUENCE":
        return None
    return f"ALTER {each.kind} {each.name} OWNER TO {quoted(owner)}"


def grant_statements(each: Object, granted: Sequence[Grant], names: Names) -> Iterator[tuple[str, str]]:
    """Yield the SQL that takes all privileges on the object away and grants the declared ones, each with the reason."""
    owner = owner_name(each, names)
    others = ", ".join(quoted(name) for name in dict.fromkeys(names.values()) if name != owner)
    yield _on(each, "REVOKE ALL ON", f"FROM {PUBLIC}, {others}" if others else f"FROM {PUBLIC}"), ""
    for grant in granted:
        if names[grant.role] != owner:
            columns = f" ({', '.join(map(quoted, grant.columns))})" if grant.columns else ""
            yield _on(each, f"GRANT {grant.privilege}{columns} ON", f"TO {quoted(names[grant.role])}"), grant.why


def grants_script(names: Names, schemas: Sequence[str], *, with_tables: bool = True) -> list[tuple[str, str]]:
    """Return all statements in their order, each with its reason or an empty text. They may be repeated.

    Args:
        names: the roles' names.
        schemas: those that the database has.
        with_tables: whether the schemas and tables exist. Else the statements are those that `db migrate` may need to
            have run before it.
    """
    script = [(statement, "") for statement in role_statements(names)]
    for each, granted in objects_of(schemas).items():
        if with_tables or each.kind == "DATABASE" or each.name == "public":
            script += [(statement, "") for statement in [owner_statement(each, names)] if statement]
            script += grant_statements(each, granted, names)
    return script


def _on(each: Object, before: str, after: str) -> str:
    if each.kind == "DATABASE":
        statement = f"{before} DATABASE %I {after}"
        return f"DO $$ BEGIN EXECUTE format('{statement}', current_database()); END $$"
    return f"{before} {each.kind} {each.name} {after}"


def owner_name(each: Object, names: Names) -> str | None:
    """Return the name of the role that owns the object."""
    owner = owner_of(each)
    return names[owner] if owner else None
