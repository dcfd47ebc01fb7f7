"""A rebuild keeps what an operator added to the history's tables, or names it before it reads anything."""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from common.postgres.engine import operator_engine
from common.settings import PipelineSettings
from common.tables.roles import Role
from history_consumer.rebuild import rebuild as rebuild_module
from history_consumer.rebuild import shadow
from history_consumer.rebuild.errors import InTheWayError, TablesAlteredError
from support.databases import database_of
from support.pipeline_acts import rebuild
from support.roles import ROLES


async def sql(settings: PipelineSettings, *statements: str) -> None:
    async with operator_engine(settings.history_database_url) as engine, engine.begin() as connection:
        # Where an operator's own objects are.
        for statement in ("SET LOCAL search_path = public", *statements):
            await connection.exec_driver_sql(statement)


# Objects that depend on the tables, by PostgreSQL's description.
IN_THE_WAY = {
    "view public.of_an_operator": "CREATE VIEW of_an_operator AS SELECT * FROM history.wallet_progress",
    "materialized view public.of_one": "CREATE MATERIALIZED VIEW of_one AS SELECT 1 FROM history.wallet_progress",
    "constraint theirs on table public.theirs": """
        CREATE TABLE theirs (wallet_id uuid CONSTRAINT theirs REFERENCES history.wallet_progress)
    """,
    "constraint ours on table history.wallet_progress": """
        CREATE TABLE theirs (id uuid PRIMARY KEY);
        ALTER TABLE history.wallet_progress ADD CONSTRAINT ours FOREIGN KEY (wallet_id) REFERENCES theirs NOT VALID
    """,
    "rule none on table history.wallet_progress": """
        CREATE RULE none AS ON DELETE TO history.wallet_progress WHERE false DO INSTEAD NOTHING
    """,
    "function public.count_them()": """
        CREATE FUNCTION count_them() RETURNS bigint BEGIN ATOMIC; SELECT count(*) FROM history.wallet_progress; END
    """,
    "function public.of_row(history.wallet_progress)": """
        CREATE FUNCTION of_row(history.wallet_progress) RETURNS int LANGUAGE sql AS 'SELECT 1'
    """,
    "column rows of table public.theirs": "CREATE TABLE theirs (rows history.wallet_progress[])",
    "publication of table history.wallet_progress in publication theirs": """
        CREATE PUBLICATION theirs FOR TABLE history.wallet_progress
    """,
    "table public.theirs": "CREATE TABLE theirs () INHERITS (history.wallet_progress)",
}


@pytest.mark.parametrize("named", IN_THE_WAY)
async def test_an_object_that_depends_on_the_tables_is_named_before_anything_is_read(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    for statement in IN_THE_WAY[named].split(";\n"):
        await sql(settings, statement)

    async def read(*_: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr(rebuild_module, "_fill_from_topic", read)
    with pytest.raises(InTheWayError) as refusal:
        await rebuild(settings)
    assert named in str(refusal.value)


LONG = "of_an_operator_with_a_name_that_is_just_as_long_as_can_be_".ljust(61, "x")

# One object of each kind that CREATE TABLE … LIKE does not copy.
KEPT = (
    f"CREATE INDEX {LONG}_1 ON history.transaction_events (currency)",
    f"CREATE INDEX {LONG}_2 ON history.transaction_events (amount_minor) WHERE amount_minor > 5",
    'CREATE INDEX "An Index ON x" ON history.wallet_progress (lower(user_id))',
    f"COMMENT ON INDEX history.{LONG}_1 IS 'it''s mine'",
    f"ALTER TABLE history.wallet_progress ADD CONSTRAINT {LONG}_3 UNIQUE (wallet_id, user_id)",
    f"COMMENT ON CONSTRAINT {LONG}_3 ON history.wallet_progress IS 'kept'",
    f"ALTER TABLE history.wallet_progress ALTER user_id SET NOT NULL, REPLICA IDENTITY USING INDEX {LONG}_3",
    f"ALTER TABLE history.transaction_events CLUSTER ON {LONG}_1",
    "ALTER TABLE history.transaction_events REPLICA IDENTITY FULL",
    "ALTER TABLE history.transaction_events SET (fillfactor = 90)",
    "ALTER TABLE history.transaction_events ALTER currency SET STATISTICS 500, ALTER currency SET (n_distinct = 3)",
    "COMMENT ON TABLE history.transaction_events IS 'of an operator'",
    "COMMENT ON COLUMN history.transaction_events.currency IS 'ISO 4217'",
    f"CREATE STATISTICS history.{LONG}_4 (ndistinct) ON wallet_id, currency FROM history.transaction_events",
    f"ALTER STATISTICS history.{LONG}_4 SET STATISTICS 50",
    "CREATE STATISTICS public.elsewhere ON user_id, event_count FROM history.wallet_progress",
    "GRANT SELECT ON history.transaction_events TO PUBLIC",
    "GRANT UPDATE (currency), SELECT (currency) ON history.transaction_events TO pg_monitor WITH GRANT OPTION",
    "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''seen''; END'",
    'CREATE TRIGGER "a ON b" BEFORE DELETE ON history.transaction_events FOR EACH ROW EXECUTE FUNCTION seen()',
    "CREATE TRIGGER b AFTER INSERT ON history.wallet_progress REFERENCING NEW TABLE AS n EXECUTE FUNCTION seen()",
    "ALTER TABLE history.wallet_progress DISABLE TRIGGER b",
    "CREATE POLICY mine ON history.transaction_events AS RESTRICTIVE FOR SELECT TO pg_monitor USING (currency = 'EUR')",
    "CREATE POLICY theirs ON history.wallet_progress FOR INSERT WITH CHECK (user_id = CURRENT_USER)",
    "ALTER TABLE history.transaction_events ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE history.wallet_progress ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "ALTER TABLE history.wallet_progress OWNER TO pg_database_owner",
)

# All that the catalogue says of the tables, without the objects' numbers.
CATALOGUE = """
    WITH ours AS (
        SELECT * FROM pg_class
        WHERE oid IN ('history.wallet_progress'::regclass, 'history.transaction_events'::regclass)
    )
    SELECT concat_ws(' ', relname, relowner::regrole, ARRAY(SELECT unnest(relacl)::text ORDER BY 1), reloptions,
        relreplident, relrowsecurity, relforcerowsecurity, obj_description(oid, 'pg_class')) FROM ours
    UNION ALL SELECT concat_ws(' ', relname, attname, attacl, attstattarget, attoptions,
        col_description(ours.oid, attnum)) FROM pg_attribute JOIN ours ON attrelid = ours.oid WHERE attnum > 0
    UNION ALL SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisreplident, indisclustered,
        obj_description(indexrelid, 'pg_class')) FROM pg_index JOIN ours ON indrelid = ours.oid
    UNION ALL SELECT concat_ws(' ', conname, pg_get_constraintdef(pg_constraint.oid),
        obj_description(pg_constraint.oid, 'pg_constraint')) FROM pg_constraint JOIN ours ON conrelid = ours.oid
    UNION ALL SELECT concat_ws(' ', pg_get_statisticsobjdef(pg_statistic_ext.oid), stxstattarget)
        FROM pg_statistic_ext JOIN ours ON stxrelid = ours.oid
    UNION ALL SELECT concat_ws(' ', pg_get_triggerdef(pg_trigger.oid), tgenabled)
        FROM pg_trigger JOIN ours ON tgrelid = ours.oid
    UNION ALL SELECT concat_ws(' ', relname, polname, polcmd, polpermissive, polroles::regrole[],
        pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
        FROM pg_policy JOIN ours ON polrelid = ours.oid
    ORDER BY 1
"""


async def catalogue_of(settings: PipelineSettings) -> list[str]:
    async with operator_engine(settings.history_database_url) as engine, engine.connect() as connection:
        return list((await connection.exec_driver_sql(CATALOGUE)).scalars())


async def test_what_an_operator_added_to_the_tables_is_kept(settings: PipelineSettings) -> None:
    # The operator must be a member of the tables' owner, which may have tables in the schema.
    database, operator = database_of(settings.history_database_url), ROLES.names[Role.OPERATOR]
    await sql(settings, f'ALTER DATABASE "{database}" OWNER TO {operator}')
    await sql(settings, "GRANT USAGE, CREATE ON SCHEMA history TO pg_database_owner", *KEPT)
    before = await catalogue_of(settings)
    assert (await rebuild(settings)).missing == 0
    assert await catalogue_of(settings) == before


async def test_a_table_that_was_altered_during_the_rebuild_is_not_replaced(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyze = shadow.analyze

    async def analyze_late(connection: AsyncConnection) -> None:
        await analyze(connection)
        await sql(settings, "CREATE INDEX late ON history.wallet_progress (user_id)")

    monkeypatch.setattr(shadow, "analyze", analyze_late)
    with pytest.raises(TablesAlteredError, match="start again"):
        await rebuild(settings)
    assert any(" late " in line for line in await catalogue_of(settings))
