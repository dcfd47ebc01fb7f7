"""docs/deployment.md has the ports and the durations of the code."""

import math
import re
from pathlib import Path

from support.drains import DRAIN_SECONDS
from support.process_settings import PORTS

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def name_of(process: str) -> str:
    """Return the name of a process from the page's words."""
    return process.lower().replace(" ", "-")


def test_the_page_has_how_long_each_process_may_take_to_end() -> None:
    rows = re.findall(r"^\| ([\w ,]+) \| .+ \| (\d+) s \|$", PAGE, re.MULTILINE)
    told = {name_of(process): int(seconds) for processes, seconds in rows for process in processes.split(", ")}
    assert told == {name: math.ceil(seconds) for name, seconds in DRAIN_SECONDS.items()}


def test_the_page_has_the_port_of_each_process() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| `walletctl .+ \| `[A-Z_]+_PORT`, (\d+) \|$", PAGE, re.MULTILINE)
    assert {name_of(process): int(port) for process, port in rows} == PORTS
