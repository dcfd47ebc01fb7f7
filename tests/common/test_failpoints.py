import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import common
from common import failpoints
from common.failpoints import NAMES, Failpoint, parse

SOURCES = Path(common.__file__).parents[1]


def run(armed: str, code: str) -> "subprocess.CompletedProcess[str]":
    program = f"from common.failpoints import hit\n{code}"
    environment = {**os.environ, "FAILPOINTS": armed, "PYTHONPATH": str(SOURCES)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


def test_every_action_can_be_written_with_and_without_the_hit() -> None:
    assert parse("relay.claimed=kill; consumer.polled=pause:2.5@3;api.committed=error@1;api.locked=stop;") == {
        "relay.claimed": Failpoint("kill"),
        "consumer.polled": Failpoint("pause", 2.5, 3),
        "api.committed": Failpoint("error", only_at=1),
        "api.locked": Failpoint("stop"),
    }


def test_nothing_is_armed_by_an_empty_value() -> None:
    assert parse("") == parse(" ; ") == {}


@pytest.mark.parametrize(
    "text",
    ["relay.claimed", "relay.claimed=", "relay.claimed=die", "relay.claimed=kill@0", "relay.claimed=pause",
     "relay.claimed=pause:-1", "relay.claimed=kill:3", "relay.claimd=kill", "relay.claimed=kill,api.locked=kill"],
)  # fmt: skip
def test_a_malformed_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="FAILPOINTS"):
        parse(text)


def test_a_process_with_a_misspelt_failpoint_does_not_start() -> None:
    assert "no failpoint 'relay.clamed'" in run("relay.clamed=kill", "").stderr


def test_nothing_happens_where_nothing_is_armed() -> None:
    for name in NAMES:
        failpoints.hit(name)


def test_kill_kills_at_the_hit_that_was_named() -> None:
    done = run("relay.claimed=kill@3", "for n in range(9): print(n, flush=True); hit('relay.claimed')")
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_error_raises_each_time_and_other_failpoints_stay_silent() -> None:
    code = """
from common.failpoints import FailpointError
hit("relay.committed")
for _ in range(2):
    try:
        hit("relay.claimed")
    except FailpointError as error:
        print(error)
"""
    assert run("relay.claimed=error", code).stdout.split() == ["relay.claimed"] * 2


def test_pause_sleeps() -> None:
    code = "import time; start = time.monotonic(); hit('relay.claimed'); print(time.monotonic() - start)"
    assert float(run("relay.claimed=pause:0.2", code).stdout) >= 0.2


def test_stop_stops_until_continued() -> None:
    program = "from common.failpoints import hit; hit('relay.claimed')"
    environment = {**os.environ, "FAILPOINTS": "relay.claimed=stop", "PYTHONPATH": str(SOURCES)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.wait(20) == 0


def test_every_failpoint_is_placed_and_every_placed_one_is_known() -> None:
    placed = {
        name
        for package in ("wallet_api", "outbox_relay", "history_consumer")
        for source in (SOURCES / package).rglob("*.py")
        for name in re.findall(r'failpoints\.hit\("([^"]+)"\)', source.read_text())
    }
    assert placed == set(NAMES)
