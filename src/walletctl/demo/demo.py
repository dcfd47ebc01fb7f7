"""The demo: sends requests to a running pipeline, and checks the promises."""

import asyncio
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final

import httpx2

from walletctl.console import Exit, out, print_json, print_table, progress_bar
from walletctl.demo.catch_up import check_balances, read_history, wait_for_history
from walletctl.demo.pipelines import Pipeline
from walletctl.demo.traffic import OPERATIONS_TOTAL, WALLETS_TOTAL, Traffic
from walletctl.stack.errors import StackError
from walletctl.stack.launch import Launch
from walletctl.stack.specs import walletctl

_TIMEOUT_SECONDS: Final = 30.0
_NOT_VERIFIED: Final = (
    "not verified: ledger, outbox, topic and history were not compared row by row. "
    "Set DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS to have it done"
)


@dataclass
class Figures:
    """The demo's measurements, the report of `verify` if it ran, and a line for each broken promise."""

    counts: Counter[str]
    traffic_seconds: float
    catch_up_seconds: float
    latencies_seconds: list[float]
    verified: dict[str, Any] | None
    broken: list[str]

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the time from commit to history, in milliseconds."""
        if len(self.latencies_seconds) < 2:  # noqa: PLR2004 - quantiles need two
            return float("nan")
        return quantiles(self.latencies_seconds, n=100)[percent - 1] * 1000


def run_demo(pipeline: AbstractContextManager[Pipeline], *, as_json: bool) -> int:
    """Run the demo on the pipeline, print a table or JSON, and return the exit code.

    Raises:
        StackError: the pipeline didn't start, refused the demo, or stopped answering.
    """
    started = time.monotonic()
    with pipeline as running:
        try:
            figures = asyncio.run(_drive(running))
        except httpx2.HTTPError as error:
            why = str(error).partition("\n")[0]
            raise StackError(f"an API did not answer the demo: {type(error).__name__} {why}") from error
        if running.audit_environment is not None:
            figures.verified = _verify(running.audit_environment)
            figures.broken += [f"verify: {line}" for line in figures.verified["differences"]]
    _print(figures, time.monotonic() - started, as_json)
    return Exit.FOUND_WRONG if figures.broken else Exit.OK


async def _drive(pipeline: Pipeline) -> Figures:
    async with (
        _client(pipeline.wallet_api_url, pipeline) as api,
        _client(pipeline.history_api_url, pipeline) as history,
    ):
        started = time.monotonic()
        with progress_bar("moving money", OPERATIONS_TOTAL) as advance:
            traffic = Traffic(api, random.Random(4711), advance)  # noqa: S311 - traffic, not secrets
            await traffic.create_wallets()
            if len(traffic.wallets) < WALLETS_TOTAL:
                raise StackError(f"the wallet API refuses the demo: {traffic.broken[0]}")
            await traffic.move_money()
            await traffic.change_statuses()
        driven = time.monotonic()
        versions, wrong_balances = await check_balances(api, traffic.wallets)
        late = await wait_for_history(history, versions)
        caught_up = time.monotonic()
        latencies, wrong_rows = await read_history(history, versions)
    broken = traffic.broken + wrong_balances + late + wrong_rows
    return Figures(traffic.counts, driven - started, caught_up - driven, latencies, None, broken)


def _client(url: str, pipeline: Pipeline) -> httpx2.AsyncClient:
    """Return a client of one of the pipeline's APIs."""
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {pipeline.api_key}"},
        limits=httpx2.Limits(max_connections=64, max_keepalive_connections=64),
        timeout=_TIMEOUT_SECONDS,
        trust_env=pipeline.uses_proxies,
    )


def _verify(environment: Mapping[str, str]) -> dict[str, Any]:
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
    if figures.verified is None:
        out.print(_NOT_VERIFIED, highlight=False, soft_wrap=True)
    else:
        checks = [
            (check["name"], f"{check['compared']:,}", "holds" if not check["differences"] else "BROKEN")
            for check in figures.verified["checks"]
        ]
        print_table("Verified", ("promise", "compared", ""), checks)
    for line in figures.broken[:20]:
        out.print(f"[red]broken:[/red] {line}", highlight=False)
    held = "every promise held" if figures.verified else "every promise that the APIs show held"
    verdict = "[red]promises were broken[/red]" if figures.broken else f"[green]{held}[/green]"
    out.print(f"{verdict}; {seconds:.0f} s in all", highlight=False)
