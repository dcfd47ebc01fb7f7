from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks import plots

CURVES: dict[str, plots.Curves] = {
    "throughput": {"this system": [(8, 1000), (64, 3000)], "ORM app": [(8, 300), (64, 400)]},
    "drain": {"one relay": [(0.0, 0), (1.5, 60_000)], "Debezium": [(0.0, 0), (3.0, 60_000)]},
    "latency": {"API": [(50, 2.5), (99, 19.0)], "Debezium": [(50, 14.0), (99.9, 30.0)]},
}


def test_each_plot_names_its_curves_and_its_axis(tmp_path: Path) -> None:
    plots.draw(CURVES, tmp_path)

    assert set(CURVES) == set(plots.TITLES)
    for name, curves in CURVES.items():
        document = ET.fromstring((tmp_path / f"{name}.svg").read_text())
        words = set(document.itertext())
        assert {*plots.TITLES[name], *curves} <= words
