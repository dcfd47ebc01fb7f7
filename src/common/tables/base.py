"""The metadata, with its naming convention, and the columns of time that the tables share."""

from typing import Any, Final

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)

TIMESTAMP: Final = DateTime(timezone=True)


def now_column(name: str = "created_at") -> Column[Any]:
    """Return a column for a time; its default is the time at which the transaction began."""
    return Column(name, TIMESTAMP, nullable=False, server_default=func.now())
