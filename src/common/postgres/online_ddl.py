"""What a migration does outside a transaction, while requests go on. Migrations import it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from alembic import op
from sqlalchemy import text

from common.postgres.lock_waits import WAIT_SECONDS_MAX

_IS_VALID: Final = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


@contextmanager
def without_transaction() -> Iterator[None]:
    """Commit, and run the block's statements without a transaction: CONCURRENTLY and VALIDATE.

    They wait for old transactions, but no request waits behind them. So they may wait for 60 seconds. If one fails, the
    migration begins anew: what stands before the block must bear a second run (`if_not_exists`).
    """
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = '{WAIT_SECONDS_MAX}s'")
        try:
            yield
        finally:
            op.execute("RESET lock_timeout")


def build_index(name: str, table: str, columns: Sequence[str], *, schema: str, **options: Any) -> None:
    """Build an index while requests go on; call it in `without_transaction`.

    A build that failed leaves an invalid index of that name behind, which this removes first (PostgreSQL manual,
    CREATE INDEX, "Building Indexes Concurrently"). A valid one stays: an earlier attempt of the migration built it, and
    did not get a later lock.
    """
    if op.get_bind().scalar(_IS_VALID, {"name": f"{schema}.{name}"}):
        return
    op.drop_index(name, table_name=table, schema=schema, if_exists=True, postgresql_concurrently=True)
    op.create_index(name, table, columns, schema=schema, postgresql_concurrently=True, **options)
