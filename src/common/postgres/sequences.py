"""Identity sequences that are behind the ids in their tables, as after a cut-over to a logical replica."""

from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

log = structlog.get_logger()

IDENTITY_COLUMNS: Final = text("""
    SELECT format('%I.%I', nspname, relname) AS table_name, quote_ident(attname) AS column_name,
        pg_get_serial_sequence(format('%I.%I', nspname, relname), attname) AS sequence_name
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p')
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND attidentity <> '' AND NOT attisdropped
    ORDER BY relname
""")


async def raise_sequences(connection: AsyncConnection, schema: str) -> list[str]:
    """Raise each sequence of the schema that is behind its identity column, and return the names of the tables.

    Such a table is locked against writes until the transaction ends.
    """
    raised = []
    for table, column, sequence in (await connection.execute(IDENTITY_COLUMNS, {"schema": schema})).all():
        # The names come from the catalogue, which has quoted them.
        behind = text(
            f"SELECT (SELECT max({column}) FROM {table}) > last_value - CASE WHEN is_called THEN 0 ELSE 1 END "  # noqa: S608
            f"FROM {sequence}"
        )
        if not await connection.scalar(behind):
            continue
        await connection.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
        if not await connection.scalar(behind):
            continue
        raise_it = f"SELECT setval('{sequence}', max({column})) FROM {table}"  # noqa: S608
        await connection.execute(text(raise_it))
        log.warning("sequence_raised", table=table)
        raised.append(table)
    return raised
