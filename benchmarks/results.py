"""The results: lines, each compared with its target, as JSON and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from benchmarks.stats import ratios, spread
from benchmarks.targets import TARGETS, Target

RESULTS: Final = Path(__file__).parent / "results"

Json = dict[str, Any]
Curve = list[tuple[float, float]]
"""Points (x, y) of a plot."""


@dataclass
class Findings:
    """The findings of one measure.

    Attributes:
        lines: the lines, by the name of their target.
        plots: the curves of each plot, by their label.
    """

    lines: dict[str, Json] = field(default_factory=dict)
    plots: dict[str, dict[str, Curve]] = field(default_factory=dict)

    def compare(self, name: str, ours: Sequence[float], peer: Sequence[float], note: str = "") -> None:
        """Add a line whose ratio to the peer is compared with the target; samples are paired."""
        found = ratios(ours, peer)
        self.lines[name] = _line(TARGETS[name], ours, peer, found, note)

    def judge(self, name: str, ours: Sequence[float], note: str = "") -> None:
        """Add a line whose value is compared with the target."""
        self.lines[name] = _line(TARGETS[name], ours, None, None, note)

    def curve(self, plot: str, label: str, points: Iterable[tuple[float, float]]) -> None:
        """Add points to a curve of a plot."""
        self.plots.setdefault(plot, {}).setdefault(label, []).extend(points)


def _line(
    target: Target, ours: Sequence[float], peer: Sequence[float] | None, found: Sequence[float] | None, note: str
) -> Json:
    judged = median(ours if found is None else found)
    return {
        "name": target.name,
        "what": target.what,
        "unit": target.unit,
        "ours": median(ours),
        "peer": None if peer is None else median(peer),
        "ratio": None if found is None else judged,
        "target": target.bound,
        "target_is": "at least" if target.at_least else "at most",
        "spread": {
            "ours": spread(ours),
            "peer": None if peer is None else spread(peer),
            "ratio": None if found is None else spread(found),
        },
        "samples": len(ours),
        "met": target.met_by(judged),
        "note": note,
    }


def merged(
    before: Mapping[str, Any], measure: str, findings: Findings, run: Mapping[str, Any], failure: str | None = None
) -> Json:
    """Return the results, in which new lines and curves replace those of the same name.

    Args:
        before: the results so far, or an empty mapping.
        measure: the name of the new measure.
        findings: its findings.
        run: this run's conditions; each line keeps those of its own run.
        failure: why the measure failed, if it did; kept until the measure is run again.
    """
    new = {name: {**line, "run": dict(run)} for name, line in findings.lines.items()}
    lines = {line["name"]: line for line in before.get("lines", ())} | new
    plots = dict(before.get("plots", {}))
    for name, curves in findings.plots.items():
        plots[name] = {**plots.get(name, {}), **curves}
    failures = {**before.get("failures", {}), measure: failure}
    return {
        "lines": [lines[name] for name in TARGETS if name in lines],
        "failures": {name: reason for name, reason in failures.items() if reason is not None},
        "plots": plots,
    }


def read(file: Path) -> Json:
    """Return the results of an earlier run; empty if there is none."""
    found: Json = orjson.loads(file.read_bytes()) if file.exists() else {}
    return found


def write(file: Path, results: Mapping[str, Any]) -> None:
    """Write the results as JSON, and as Markdown beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    file.with_suffix(".md").write_text(markdown(results))


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table, followed by failures, the runs' conditions and the lines' notes."""
    head = ("what", "ours", "peer", "ratio (lowest to highest)", "target", "")
    rows = [head, tuple("---" for _ in head), *(cells(line) for line in results["lines"])]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    runs = {line["run"]["started_at"]: line["run"] for line in results["lines"]}
    about = [", ".join(f"{name} {value}" for name, value in runs[at].items()) for at in sorted(runs)]
    notes = [f"{line['what']}: {line['note']}" for line in results["lines"] if line["note"]]
    failed = [f"{name} failed: {reason}" for name, reason in results["failures"].items()]
    return "\n".join((table, "", *(f"- {text}" for text in (*failed, *about, *notes)), ""))


def cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line as text: what is measured, ours, the peer's, the ratio, the target, and whether it is met."""
    unit = line["unit"]
    compared = line["ratio"] is not None
    ours = f"{figure(line['ours'])} {unit}"
    if not compared:
        ours += f" ({' to '.join(map(figure, line['spread']['ours']))})"
    bound = f"{line['target_is']} {figure(line['target'])}" + ("" if compared else f" {unit}")
    return (
        line["what"],
        ours,
        f"{figure(line['peer'])} {unit}" if compared else "-",
        f"{figure(line['ratio'])} ({' to '.join(map(figure, line['spread']['ratio']))})" if compared else "-",
        bound,
        "met" if line["met"] else "missed",
    )


def short_cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line as `cells` does, shorter, for a terminal: the unit once, and no spread."""
    peer, ratio = ("-" if line[name] is None else figure(line[name]) for name in ("peer", "ratio"))
    bound = f"{'≥' if line['target_is'] == 'at least' else '≤'} {figure(line['target'])}"
    what = f"{line['what']} ({line['unit']})"
    return what, figure(line["ours"]), peer, ratio, bound, "met" if line["met"] else "missed"


def figure(value: float) -> str:
    """Return the number with at least three figures, and with separated thousands."""
    if abs(value) >= 100:  # noqa: PLR2004 - three figures
        return f"{value:,.0f}"
    return f"{value:.3g}"
