"""pgbench: what the database alone can do with the same rows."""

import re
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.load.wrk import LoadError
from walletctl.stack.postgres import binaries

PEERS: Final = Path(__file__).resolve().parents[1] / "peers"
BY_STATEMENTS: Final = PEERS / "transfer_statements.sql"
BY_FUNCTION: Final = PEERS / "transfer_function.sql"


def start(
    url: str, script: Path, *, clients: int, wallets: int, senders: int, limit: tuple[str, float]
) -> "subprocess.Popen[str]":
    """Start transfers.

    Args:
        url: of the database.
        script: `BY_STATEMENTS` or `BY_FUNCTION`.
        clients: connections.
        wallets: how many there are.
        senders: how many of them send; 1 makes it hot.
        limit: `("-T", seconds)`, or `("-t", transfers of each client)`.
    """
    command = [str(binaries() / "pgbench"), *f"-n -M prepared -c {clients} -j {min(clients, 2)}".split()]
    command += ["-f", str(script), "-D", f"wallets={wallets}", "-D", f"senders={senders}"]
    command += [limit[0], str(round(limit[1])), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> float:
    """Wait for its end; return the transfers a second.

    Raises:
        LoadError: it failed, or a transfer did.
    """
    said, complained = process.communicate()
    rate = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", said, re.MULTILINE)
    if process.returncode or not rate or not failed or int(failed[1]):
        raise LoadError(f"pgbench failed: {(complained or said).strip()[-1000:]}")
    return float(rate[1])
