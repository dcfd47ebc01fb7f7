"""The command line of `make bench`."""

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import lab, plots, queries, results
from benchmarks.load.wrk import MissingGeneratorError, require_wrk
from benchmarks.measures import MEASURES
from benchmarks.plan import PLANS, Plan
from benchmarks.results import RESULTS, Findings
from walletctl.console import Exit, JsonOption, err, fail, print_error, print_json, print_table

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(
    epilog="Examples:  make bench  ·  make bench QUICK=1  ·  python -m benchmarks --only relay-drain"
    "  ·  WALLET_API_WORKERS=1 RELAY_TASKS=4 python -m benchmarks --size quick"
)
def bench(
    size: Annotated[str, typer.Option(help=f"The size of the run: {', '.join(PLANS)}.")] = "normal",
    only: Annotated[
        list[str] | None, typer.Option(help=f"Run only this measure; may be repeated: {', '.join(MEASURES)}.")
    ] = None,
    api_processes: Annotated[
        int,
        typer.Option(
            envvar="WALLET_API_WORKERS", help="The number of processes of our API, and of the ORM app.", min=1, max=64
        ),
    ] = 2,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers' data and logs, and print their directory.")
    ] = False,
    file: Annotated[
        Path,
        typer.Option("--results", help="The file of the results, as JSON; the table and plots are written beside it."),
    ] = RESULTS / "latest.json",
    as_json: JsonOption = False,
) -> None:
    """Measure this system and its peers on temporary servers, and compare the results with the targets.

    The measured processes inherit your environment's variables, such as RELAY_BATCH_ROWS. Lines that this run doesn't
    measure stay in the results. Exit 1 if a target was missed or a measure failed.
    """
    plan, chosen = _plan(size), _chosen(only)
    try:
        require_wrk()
    except MissingGeneratorError as error:
        fail(str(error), Exit.UNREACHABLE)
    with _directory(keep=keep) as directory, lab.opened(directory, api_processes) as servers:
        run = _about(servers, plan)
        _measure(servers, plan, chosen, file, run)
    found = results.read(file)
    if as_json:
        print_json(found)
    else:
        columns = ("what", "ours", "peer", "ratio", "target", "")
        print_table("Results", columns, map(results.short_cells, found["lines"]))
    for name, reason in found["failures"].items():
        print_error(f"{name}: {reason}")
    if found["failures"] or not all(line["met"] for line in found["lines"]):
        raise typer.Exit(Exit.FOUND_WRONG)


def _plan(size: str) -> Plan:
    if size not in PLANS:
        fail(f"--size: there is no {size}; take {', '.join(PLANS)}", Exit.USAGE)
    return PLANS[size]


def _chosen(only: list[str] | None) -> list[str]:
    unknown = [name for name in only or () if name not in MEASURES]
    if unknown:
        fail(f"--only: there is no {unknown[0]}; take {', '.join(MEASURES)}", Exit.USAGE)
    return [name for name in MEASURES if not only or name in only]


def _measure(servers: lab.Lab, plan: Plan, chosen: list[str], file: Path, run: Mapping[str, Any]) -> None:
    """Run the measures; write the results, or the failure, of each as soon as it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=len(chosen))
        for name in chosen:
            progress.update(task, description=name)
            findings, failure, started = Findings(), None, time.monotonic()
            try:
                MEASURES[name](servers, plan, findings)
            except Exception as error:  # noqa: BLE001 - a failure is reported, and the other measures run
                failure = f"{type(error).__name__}: {error}"
            found = results.merged(results.read(file), name, findings, run, failure)
            results.write(file, found)
            plots.draw(found["plots"], file.parent)
            shown = [f"{line['name']} {' / '.join(results.cells(line)[1:4])}" for line in findings.lines.values()]
            summary = "; ".join([*shown, *filter(None, [failure])])
            seconds = time.monotonic() - started
            progress.console.print(
                f"{name} ({seconds:.0f} s): {summary}", highlight=False, markup=False, soft_wrap=True
            )
            progress.advance(task)


@contextmanager
def _directory(*, keep: bool) -> Iterator[Path]:
    if keep:
        directory = Path(tempfile.mkdtemp(prefix="wallet-bench-"))
        try:
            yield directory
        finally:
            err.print(f"data and logs are in {directory}", highlight=False, soft_wrap=True)
        return
    with tempfile.TemporaryDirectory(prefix="wallet-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _about(servers: lab.Lab, plan: Plan) -> dict[str, Any]:
    """Return a run's conditions."""
    settings = dict(tuple(row) for row in queries.fetch(servers.postgres_url, queries.SETTINGS))
    return {
        "started_at": f"{datetime.now(UTC):%F %T} UTC",
        "size": plan.name,
        "rounds": plan.rounds,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": settings.pop("server_version"),
        "api_processes": servers.api_processes,
        **settings,
    }


def main() -> None:
    """Run the command."""
    app()
