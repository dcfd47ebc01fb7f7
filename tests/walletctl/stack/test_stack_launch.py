import os
import shutil
import signal
from pathlib import Path

import pytest

from walletctl.stack.launch import NOBODY_UID, launch, run_step, setpriv


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs anything as another user")
@pytest.mark.skipif(setpriv() is None, reason="needs setpriv")
def test_another_user_reaches_programs_below_directories_that_only_root_may_enter(tmp_path: Path) -> None:
    """As initdb looks for postgres beside itself: with access(2), which asks for the real user's rights."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = shutil.copy(shutil.which("true") or "/bin/true", closed / "program")
    look = f"import os, sys; sys.exit(not os.access({str(program)!r}, os.R_OK | os.X_OK))"
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("needs a system Python that everybody may run")
    run_step("look", launch([python, "-c", look], on_parent_death=signal.SIGKILL, user=NOBODY_UID))
