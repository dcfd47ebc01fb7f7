"""pgbench: the rate that the database alone reaches with the same rows."""

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
        url: the database's URL.
        script: `BY_STATEMENTS` or `BY_FUNCTION`.
        clients: the number of connections.
        wallets: the number of wallets.
        senders: the number of wallets that send; 1 is a hot wallet.
        limit: `("-T", seconds)`, or `("-t", transfers of each client)`.
    """
    command = [str(binaries() / "pgbench"), *f"-n -M prepared -c {clients} -j {min(clients, 2)}".split()]
    command += ["-f", str(script), "-D", f"wallets={wallets}", "-D", f"senders={senders}"]
    command += [limit[0], str(round(limit[1])), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> float:
    """Wait for pgbench's end; return the transfers a second.

    Raises:
        LoadError: pgbench or a transfer failed.
    """
    output, errors = process.communicate()
    rate = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    if process.returncode or not rate or not failed or int(failed[1]):
        raise LoadError(f"pgbench failed: {(errors or output).strip()[-1000:]}")
    return float(rate[1])
