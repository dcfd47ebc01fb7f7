"""What the catalogue says of a table: what a table like it needs, and what keeps the table from being dropped.

`CREATE TABLE … (LIKE … INCLUDING ALL)` copies columns, defaults, CHECKs and the comments of columns, and nothing else
(PostgreSQL manual, CREATE TABLE). Chapter 52 of that manual describes the catalogues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_INDEXES: Final = text("""
    SELECT quote_ident(index.relname) AS name, pg_get_indexdef(index.oid) AS definition,
        pg_get_constraintdef(made.oid) AS made_by, indisreplident AS identifies, indisclustered AS clusters,
        quote_literal(obj_description(index.oid, 'pg_class')) AS comment,
        quote_literal(obj_description(made.oid, 'pg_constraint')) AS constraint_comment
    FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
    LEFT JOIN pg_constraint AS made ON made.conindid = index.oid AND made.contype IN ('p', 'u', 'x')
    WHERE indrelid = cast(cast(:name AS text) AS regclass) AND indisvalid ORDER BY index.relname
""")

_OPTIONS: Final = text(
    "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = cast(cast(:name AS text) AS regclass)"
)

_STATISTICS: Final = text("""
    SELECT format('%I.%I', nspname, stxname) AS name, quote_ident(stxname) AS short_name,
        pg_get_statisticsobjdef(statistics.oid) AS definition,
        nullif(stxstattarget, -1) AS target
    FROM pg_statistic_ext AS statistics JOIN pg_namespace ON pg_namespace.oid = stxnamespace
    WHERE stxrelid = cast(cast(:name AS text) AS regclass) ORDER BY 1
""")

# Statements in two parts: the table's name belongs between them. The owner comes first: the grants are the owner's.
_EARLY: Final = text("""
    WITH live AS (SELECT * FROM pg_class WHERE oid = cast(cast(:name AS text) AS regclass)),
    columns AS (SELECT pg_attribute.* FROM pg_attribute JOIN live ON attrelid = live.oid WHERE attnum > 0),
    roles AS (
        SELECT 0::oid AS oid, 'PUBLIC' AS name UNION ALL SELECT oid, quote_ident(rolname) FROM pg_roles
    )
    SELECT before, after FROM (
        SELECT 1 AS step, 'ALTER TABLE ' AS before, format(' OWNER TO %I', pg_get_userbyid(relowner)) AS after FROM live
        UNION ALL
        SELECT 2, 'COMMENT ON TABLE ', ' IS ' || quote_literal(obj_description(oid, 'pg_class')) FROM live
        UNION ALL
        SELECT 3, 'ALTER TABLE ', CASE relreplident WHEN 'f' THEN ' REPLICA IDENTITY FULL'
            WHEN 'n' THEN ' REPLICA IDENTITY NOTHING' END FROM live
        UNION ALL
        SELECT 4, 'ALTER TABLE ', format(' ALTER COLUMN %I SET STATISTICS %s', attname, attstattarget) FROM columns
        WHERE attstattarget >= 0
        UNION ALL
        SELECT 5, 'ALTER TABLE ', format(' ALTER COLUMN %I SET (%s)', attname, array_to_string(attoptions, ', '))
        FROM columns WHERE attoptions IS NOT NULL
        UNION ALL
        SELECT 6, format('GRANT %s ON ', privilege_type),
            ' TO ' || roles.name || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM live CROSS JOIN aclexplode(relacl) JOIN roles ON roles.oid = grantee WHERE grantee <> relowner
        UNION ALL
        SELECT 7, format('GRANT %s (%I) ON ', privilege_type, attname),
            ' TO ' || roles.name || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM columns CROSS JOIN aclexplode(attacl) JOIN roles ON roles.oid = grantee
    ) AS statements
    WHERE after IS NOT NULL ORDER BY step, before, after
""")

# Triggers and policies, in the same form. They would act on the rebuild's own writes.
_LATE: Final = text("""
    WITH live AS (SELECT * FROM pg_class WHERE oid = cast(cast(:name AS text) AS regclass)),
    triggers AS (
        SELECT tgname, tgenabled, pg_get_triggerdef(pg_trigger.oid) AS definition,
            position(' ON ' || cast(:name AS text) || ' ' IN pg_get_triggerdef(pg_trigger.oid)) + 3 AS place
        FROM pg_trigger JOIN live ON tgrelid = live.oid WHERE NOT tgisinternal
    ),
    policies AS (SELECT pg_policy.* FROM pg_policy JOIN live ON polrelid = live.oid)
    SELECT before, after FROM (
        SELECT 1 AS step, left(definition, place) AS before,
            substr(definition, place + 1 + length(cast(:name AS text))) AS after
        FROM triggers
        UNION ALL
        SELECT 2, 'ALTER TABLE ', format(CASE tgenabled WHEN 'D' THEN ' DISABLE TRIGGER %I'
            WHEN 'R' THEN ' ENABLE REPLICA TRIGGER %I' ELSE ' ENABLE ALWAYS TRIGGER %I' END, tgname)
        FROM triggers WHERE tgenabled <> 'O'
        UNION ALL
        SELECT 3, format('CREATE POLICY %I ON ', polname), concat(
            CASE WHEN polpermissive THEN ' AS PERMISSIVE' ELSE ' AS RESTRICTIVE' END,
            CASE polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE'
                WHEN 'd' THEN ' FOR DELETE' ELSE ' FOR ALL' END,
            ' TO ' || (
                SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ')
                FROM unnest(polroles) AS role
            ),
            ' USING (' || pg_get_expr(polqual, polrelid) || ')',
            ' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')'
        ) FROM policies
        UNION ALL
        SELECT 4, 'ALTER TABLE ', ' ENABLE ROW LEVEL SECURITY' FROM live WHERE relrowsecurity
        UNION ALL
        SELECT 5, 'ALTER TABLE ', ' FORCE ROW LEVEL SECURITY' FROM live WHERE relforcerowsecurity
    ) AS statements
    ORDER BY step, before, after
""")

# Objects for which DROP TABLE fails: they depend on the table or its row type, and are not dropped with it. Also
# objects that no statement can restore: a subscriber of a publication, say, has the old rows.
_IN_THE_WAY: Final = text("""
    WITH live AS (SELECT oid, reltype FROM pg_class WHERE oid = cast(cast(:name AS text) AS regclass)),
    hanging AS (
        SELECT classid, objid, objsubid FROM pg_depend JOIN live ON deptype = 'n' AND (
            (refclassid = 'pg_class'::regclass AND refobjid = live.oid)
            OR (refclassid = 'pg_type'::regclass AND refobjid IN (
                SELECT oid FROM pg_type WHERE oid = reltype OR typelem = reltype
            ))
        )
        WHERE NOT EXISTS (
            SELECT FROM pg_depend AS own
            WHERE own.classid = pg_depend.classid AND own.objid = pg_depend.objid
                AND own.refclassid = 'pg_class'::regclass AND own.refobjid = live.oid AND own.deptype IN ('a', 'i')
        )
    )
    SELECT coalesce(
        (SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite
            WHERE classid = 'pg_rewrite'::regclass AND oid = objid),
        pg_describe_object(classid, objid, objsubid)
    ) AS what FROM hanging
    UNION SELECT pg_describe_object('pg_constraint'::regclass, pg_constraint.oid, 0)
        FROM pg_constraint JOIN live ON conrelid = live.oid WHERE contype = 'f'
    UNION SELECT pg_describe_object('pg_rewrite'::regclass, pg_rewrite.oid, 0)
        FROM pg_rewrite JOIN live ON ev_class = live.oid
    UNION SELECT pg_describe_object('pg_publication_rel'::regclass, pg_publication_rel.oid, 0)
        FROM pg_publication_rel JOIN live ON prrelid = live.oid
    UNION SELECT format('inheritance from %s', inhparent::regclass) FROM pg_inherits JOIN live ON inhrelid = live.oid
    ORDER BY what
""")


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table, or the constraint that owns it. Names are quoted for SQL, comments are SQL literals."""

    name: str
    definition: str
    made_by: str | None
    identifies: bool
    clusters: bool
    comment: str | None
    constraint_comment: str | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Extended statistics on a table. `target` is None for the default."""

    name: str
    short_name: str
    definition: str
    target: int | None


@dataclass(frozen=True, slots=True)
class TableDescription:
    """All that a table has besides its columns. Two descriptions are equal if the table was not altered in between.

    Args:
        options: its storage parameters, as `WITH` takes them, or None.
        indexes: sorted by name.
        statistics: sorted by name.
        early: statements to run on a table like it before it is filled; the table's name belongs between the parts.
        late: statements to run after it is filled, in the same form.
        in_the_way: objects that keep the table from being dropped, or cannot be restored, in PostgreSQL's words.
    """

    options: str | None
    indexes: Sequence[Index]
    statistics: Sequence[Statistics]
    early: Sequence[tuple[str, str]]
    late: Sequence[tuple[str, str]]
    in_the_way: Sequence[str]


async def describe(connection: AsyncConnection, name: str) -> TableDescription:
    """Return what the catalogue says of the table `schema.name`."""
    parameters = {"name": name}
    return TableDescription(
        await connection.scalar(_OPTIONS, parameters),
        tuple(Index(*row) for row in await connection.execute(_INDEXES, parameters)),
        tuple(Statistics(*row) for row in await connection.execute(_STATISTICS, parameters)),
        tuple((before, after) for before, after in await connection.execute(_EARLY, parameters)),
        tuple((before, after) for before, after in await connection.execute(_LATE, parameters)),
        tuple(what for (what,) in await connection.execute(_IN_THE_WAY, parameters)),
    )
