import os
import shutil
import signal
from pathlib import Path

import pytest

from walletctl.stack import launch as launching
from walletctl.stack.launch import NOBODY_UID, bound_log, launch, open_log, run_step, setpriv


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs anything as another user")
@pytest.mark.skipif(setpriv() is None, reason="needs setpriv")
def test_another_user_reaches_programs_below_directories_that_only_root_may_enter(tmp_path: Path) -> None:
    """initdb looks for postgres with access(2), which checks the real user's rights."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = shutil.copy(shutil.which("true") or "/bin/true", closed / "program")
    look = f"import os, sys; sys.exit(not os.access({str(program)!r}, os.R_OK | os.X_OK))"
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("needs a system Python that everybody may run")
    run_step("look", launch([python, "-c", look], on_parent_death=signal.SIGKILL, user=NOBODY_UID))


def test_a_log_that_grew_too_large_is_copied_and_truncated_and_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "LOG_BYTES_MAX", 10)
    file = tmp_path / "logs" / "a.log"
    with open_log(file) as log:
        for line in (b"the first line\n", b"the second line\n", b"short\n", b"and more\n"):
            log.write(line)
            log.flush()
            if line != b"short\n":
                bound_log(file)
    assert file.with_name("a.log.1").read_bytes() == b"short\nand more\n"
    assert file.read_bytes() == b""
    assert len(list(file.parent.iterdir())) == 2
