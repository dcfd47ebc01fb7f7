"""The demo: runs the whole pipeline on a stack of its own, sends requests, and checks the promises."""

import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import httpx

from walletctl.console import Exit, err, out, print_json, print_table, progress_bar
from walletctl.demo.catch_up import check_balances, read_history, wait_for_history
from walletctl.demo.traffic import OPERATIONS_TOTAL, Traffic
from walletctl.stack.control import running_state
from walletctl.stack.errors import StackError
from walletctl.stack.launch import Launch
from walletctl.stack.specs import shared_environment, walletctl
from walletctl.stack.state import StackState

_TIMEOUT_SECONDS: Final = 30.0


@dataclass
class Figures:
    """The demo's measurements, and a line for each broken promise."""

    counts: Counter[str]
    traffic_seconds: float
    catch_up_seconds: float
    latencies_seconds: list[float]
    verified: dict[str, Any]
    broken: list[str]

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the time from commit to history, in milliseconds."""
        if len(self.latencies_seconds) < 2:  # noqa: PLR2004 - quantiles need two
            return float("nan")
        return quantiles(self.latencies_seconds, n=100)[percent - 1] * 1000


def run_demo(*, as_json: bool) -> int:
    """Run the demo, print a table or JSON, and return the exit code.

    Raises:
        StackError: the stack didn't start, or stopped answering.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wallet-demo-") as directory, _stack(Path(directory)) as stack:
        try:
            figures = asyncio.run(_drive(stack.environment))
        except httpx.HTTPError as error:
            raise StackError(f"an API did not answer the demo: {type(error).__name__} {error}") from error
        figures.verified = _verify(shared_environment(stack.ports, stack.auditor_url))
    if not figures.verified["ok"]:
        figures.broken += [f"verify: {line}" for line in figures.verified["differences"]]
    _print(figures, time.monotonic() - started, as_json)
    return Exit.FOUND_WRONG if figures.broken else Exit.OK


@contextmanager
def _stack(directory: Path) -> Iterator[StackState]:
    """Run a stack for the block; yield its state."""
    err.print("starting PostgreSQL, Kafka and the four processes …", highlight=False)
    where = ("--data-dir", str(directory / "stack"))
    try:
        _walletctl("stack", "up", "--detach", "--ephemeral", *where)
        yield running_state(directory / "stack")
    finally:
        err.print("stopping …", highlight=False)
        _walletctl("stack", "down", *where)


def _walletctl(*arguments: str) -> None:
    done = subprocess.run(walletctl(*arguments), stdout=subprocess.DEVNULL, check=False)
    if done.returncode != Exit.OK:
        raise StackError(f"walletctl {' '.join(arguments)} exited with {done.returncode}")


async def _drive(environment: dict[str, str]) -> Figures:
    key = environment["WALLET_API_KEY"]
    async with (
        _client(environment["WALLET_API_URL"], key) as api,
        _client(environment["HISTORY_API_URL"], key) as history,
    ):
        started = time.monotonic()
        with progress_bar("moving money", OPERATIONS_TOTAL) as advance:
            traffic = Traffic(api, random.Random(4711), advance)  # noqa: S311 - traffic, not secrets
            await traffic.create_wallets()
            await traffic.move_money()
        driven = time.monotonic()
        versions, wrong_balances = await check_balances(api, traffic.wallets)
        late = await wait_for_history(history, versions)
        caught_up = time.monotonic()
        latencies, wrong_rows = await read_history(history, versions)
    broken = traffic.broken + wrong_balances + late + wrong_rows
    return Figures(traffic.counts, driven - started, caught_up - driven, latencies, {}, broken)


def _client(url: str, api_key: str) -> httpx.AsyncClient:
    """Return a client of a server on this machine. It ignores the proxies of the caller's environment."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    headers = {"Authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=_TIMEOUT_SECONDS, trust_env=False)


def _verify(environment: dict[str, str]) -> dict[str, Any]:
    start = Launch(walletctl("verify", "--json"), environment)
    done = subprocess.run(start.command, env=start.environment(), stdout=subprocess.PIPE, check=False)
    if done.returncode not in {Exit.OK, Exit.FOUND_WRONG}:
        raise StackError(f"walletctl verify exited with {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _print(figures: Figures, seconds: float, as_json: bool) -> None:
    total = figures.counts.total()
    rate = total / figures.traffic_seconds
    p50, p99 = figures.percentile_ms(50), figures.percentile_ms(99)
    if as_json:
        print_json(
            {
                "ok": not figures.broken,
                "operations": dict(figures.counts),
                "operations_per_second": round(rate, 1),
                "history_p50_ms": round(p50, 1),
                "history_p99_ms": round(p99, 1),
                "verify": figures.verified,
                "broken": figures.broken,
                "seconds": round(seconds, 1),
            }
        )
        return
    rows: list[tuple[str, str]] = [(kind, f"{count:,}") for kind, count in figures.counts.items()]
    rows += [
        ("requests in all", f"{total:,} in {figures.traffic_seconds:.1f} s = {rate:,.0f} a second"),
        ("commit to history", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms over {len(figures.latencies_seconds):,} rows"),
        ("history complete", f"{figures.catch_up_seconds:.1f} s after the last request"),
    ]
    out.print()
    print_table("Requests", ("", ""), rows)
    checks = [
        (check["name"], f"{check['compared']:,}", "holds" if not check["differences"] else "BROKEN")
        for check in figures.verified["checks"]
    ]
    print_table("Verified", ("promise", "compared", ""), checks)
    for line in figures.broken[:20]:
        out.print(f"[red]broken:[/red] {line}", highlight=False)
    verdict = "[red]promises were broken[/red]" if figures.broken else "[green]every promise held[/green]"
    out.print(f"{verdict}; {seconds:.0f} s in all", highlight=False)
