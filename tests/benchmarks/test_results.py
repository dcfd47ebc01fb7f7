from pathlib import Path

from benchmarks import results
from benchmarks.results import Findings
from benchmarks.targets import TARGETS

RUN = {"started_at": "2026-11-22 12:00:00 UTC", "size": "quick"}


def test_a_line_has_medians_spread_and_the_median_of_the_ratios_of_each_pair() -> None:
    findings = Findings()

    findings.compare("relay_drain", [60.0, 80.0, 100.0], [30.0, 20.0, 25.0])

    line = findings.lines["relay_drain"]
    assert (line["ours"], line["peer"], line["ratio"]) == (80.0, 25.0, 4.0)
    assert line["spread"] == {"ours": (60.0, 100.0), "peer": (20.0, 30.0), "ratio": (2.0, 4.0)}
    assert (line["target"], line["target_is"], line["unit"], line["met"]) == (2.0, "at least", "events/s", True)


def test_less_is_better_where_the_target_says_at_most() -> None:
    findings = Findings()

    findings.compare("relay_p50", [6.0], [10.0])
    findings.judge("visible_p99", [59.0, 60.0, 61.0])

    assert not findings.lines["relay_p50"]["met"]
    assert findings.lines["visible_p99"]["met"]
    assert findings.lines["visible_p99"]["ratio"] is None


def test_what_is_not_measured_again_stays_in_the_results(tmp_path: Path) -> None:
    first, second = Findings(), Findings()
    first.compare("hot_funds", [90.0], [10.0])
    first.curve("latency", "old", [(50, 1)])
    first.judge("visible_p50", [20.0])
    second.judge("visible_p50", [10.0])
    second.curve("latency", "new", [(50, 2)])
    file = tmp_path / "results" / "latest.json"

    results.write(file, results.merged(results.read(file), "first", first, RUN, "too slow"))
    results.write(file, results.merged(results.read(file), "second", second, {**RUN, "size": "full"}))

    kept = results.read(file)
    assert [(line["name"], line["ours"], line["run"]["size"]) for line in kept["lines"]] == [
        ("hot_funds", 90.0, "quick"),
        ("visible_p50", 10.0, "full"),
    ]
    assert kept["failures"] == {"first": "too slow"}
    assert kept["plots"] == {"latency": {"old": [[50, 1]], "new": [[50, 2]]}}


def test_the_table_says_what_was_reached_and_what_was_missed() -> None:
    findings = Findings()
    findings.compare("hot_funds", [80.0, 90.0], [10.0, 10.0], note="3 replies with 503")
    findings.judge("api_p99", [26.0])

    table = results.markdown(results.merged({}, "hot-funds", findings, RUN, "out of disk")).splitlines()

    hot, api = TARGETS["hot_funds"].what, TARGETS["api_p99"].what
    assert f"| {hot} | 85 funds/s | 10 funds/s | 8.5 (8 to 9) | at least 8 | met |" in table
    assert f"| {api} | 26 ms (26 to 26) | - | - | at most 25 ms | missed |" in table
    assert "- hot-funds failed: out of disk" in table
    assert f"- {hot}: 3 replies with 503" in table
    assert "- started_at 2026-11-22 12:00:00 UTC, size quick" in table


def test_a_failure_is_forgotten_when_the_measure_succeeds() -> None:
    failed = results.merged({}, "visible", Findings(), RUN, "too slow")

    assert results.merged(failed, "consumer", Findings(), RUN)["failures"] == {"visible": "too slow"}
    assert results.merged(failed, "visible", Findings(), RUN)["failures"] == {}
