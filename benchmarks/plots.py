"""Draws the plots, as SVG, from the results' JSON alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import leather

Curves = Mapping[str, Sequence[Sequence[float]]]

# The title, and the name of the x axis, of each plot.
TITLES: Final = {
    "throughput": ("Transfers a second over HTTP", "connections"),
    "drain": ("Events of a backlog that are in Kafka", "seconds since the first"),
    "latency": ("Latency in milliseconds", "share of all that took no longer"),
}
_WIDTH: Final = 800
_HEIGHT: Final = 450
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f")


def draw(plots: Mapping[str, Curves], directory: Path) -> None:
    """Write `NAME.svg` for each plot."""
    for name, curves in plots.items():
        title, x_name = TITLES[name]
        chart = leather.Chart(title)
        (_latency if name == "latency" else _lines)(chart, curves, x_name)
        (directory / f"{name}.svg").write_text(chart.to_svg(width=_WIDTH, height=_HEIGHT) + "\n")


def _lines(chart: Any, curves: Curves, x_name: str) -> None:
    for colour, (label, points) in zip(_COLOURS, curves.items(), strict=False):
        chart.add_line([tuple(point) for point in points], name=label, stroke_color=colour)
    chart.add_x_scale(0, max(point[0] for points in curves.values() for point in points))
    chart.add_y_scale(0, max(point[1] for points in curves.values() for point in points))
    chart.add_x_axis(name=x_name)
    chart.add_y_axis(tick_formatter=lambda value, *_: f"{value:,.0f}")


def _latency(chart: Any, curves: Curves, x_name: str) -> None:
    """Draw latencies by percentile: the x axis counts nines (p90, p99, …), and the y axis is logarithmic."""
    for colour, (label, points) in zip(_COLOURS, curves.items(), strict=False):
        line = [(_nines(percent), math.log10(milliseconds)) for percent, milliseconds in points]
        chart.add_line(line, name=label, stroke_color=colour)
    percents = sorted({point[0] for points in curves.values() for point in points})
    most = max(point[1] for points in curves.values() for point in points)
    chart.add_x_scale(_nines(percents[0]), _nines(percents[-1]))
    chart.add_y_scale(0, math.ceil(math.log10(most)))
    names = {_nines(percent): f"p{percent:g}" for percent in percents}
    chart.add_x_axis(name=x_name, ticks=list(names), tick_formatter=lambda value, *_: names[value])
    ticks = [math.log10(digit * 10**power) for power in range(math.ceil(math.log10(most)) + 1) for digit in (1, 2, 5)]
    chart.add_y_axis(
        ticks=[tick for tick in ticks if tick <= math.ceil(math.log10(most))],
        tick_formatter=lambda value, *_: f"{10**value:,.0f}",
    )


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)
