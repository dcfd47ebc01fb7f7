"""The rows that a consumer wrote, as files for `COPY`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.place import Place
from walletctl.stack.postgres import binaries

TABLES: Final = ("history.transaction_events", "history.wallet_progress")


@contextmanager
def copied_out(place: Place, directory: Path) -> Iterator[dict[str, Path]]:
    """Copy the history to files, in the order in which it was written; the files exist during the block."""
    files = {table: directory / f"{place.topic}-{table}.csv" for table in TABLES}
    for table, file in files.items():
        copy = f"\\copy (SELECT * FROM {table} ORDER BY ctid) TO '{file}' (FORMAT csv)"  # noqa: S608 - constants
        subprocess.run([str(binaries() / "psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-c", copy, place.url], check=True)
    yield files
    for file in files.values():
        file.unlink()
