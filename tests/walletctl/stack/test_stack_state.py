import os
import subprocess
import sys
from pathlib import Path

import pytest

from walletctl.stack.errors import AlreadyRunningError, SetupError
from walletctl.stack.state import (
    STATE_FILE,
    ProcessState,
    StackState,
    Status,
    lock_holder,
    read_state,
    stack_lock,
    write_state,
)


def a_state(*processes: ProcessState) -> StackState:
    return StackState(supervisor_pid=os.getpid(), ephemeral=False, ports={"kafka": 9092}, processes=list(processes))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    state = a_state(ProcessState(name="kafka", pid=7, created=1.5, state=Status.READY, restarts=2, url="h:1"))
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert [file.name for file in tmp_path.iterdir()] == [STATE_FILE]


def test_no_state_is_none_and_a_broken_one_is_one_line(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / STATE_FILE).write_text("{")
    with pytest.raises(SetupError, match="can't be read") as caught:
        read_state(tmp_path)
    assert "\n" not in str(caught.value)


def test_status_shows_exactly_the_promised_fields() -> None:
    process = ProcessState(name="kafka", pid=7, created=1.5, state=Status.READY)
    assert process.public() == {"name": "kafka", "pid": 7, "state": "ready", "restarts": 0}
    with_url = process.model_copy(update={"url": "http://x"})
    assert with_url.public() == {"name": "kafka", "pid": 7, "state": "ready", "restarts": 0, "url": "http://x"}


@pytest.mark.parametrize("status", [Status.STARTING, Status.RESTARTING, Status.STOPPED])
def test_a_stack_is_ready_when_every_process_is(status: Status) -> None:
    ready = ProcessState(name="kafka", state=Status.READY)
    assert a_state(ready).ready
    assert not a_state(ready, ProcessState(name="postgres", state=status)).ready
    assert not a_state().ready


def test_the_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    with stack_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()
        with pytest.raises(AlreadyRunningError, match=rf"pid {os.getpid()}.*stack down --data-dir {tmp_path}"):
            stack_lock(tmp_path).__enter__()
    assert lock_holder(tmp_path) is None


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from walletctl.stack.state import stack_lock\n"
        "with stack_lock(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert lock_holder(tmp_path) is None
    with stack_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()
