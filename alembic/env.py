"""Alembic's environment: it runs the migrations of one schema on the connection of `common.postgres.migrations`."""

from alembic import context
from sqlalchemy import Connection, text

from common.tables import metadata

schema: str = context.config.attributes["schema"]
connection: Connection = context.config.attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=schema,
    include_schemas=True,
)
with context.begin_transaction():
    context.config.attributes["lock_first"]()
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    context.run_migrations()
