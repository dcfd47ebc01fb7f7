"""How the stack's processes are started: who they run as, and that they never outlive their parent."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from signal import Signals
from typing import IO, Any

from walletctl.stack.environment import base_environment
from walletctl.stack.errors import StackError

NOBODY_UID = 65534
STEP_SECONDS_MAX = 300.0
LOG_BYTES_MAX = 20_000_000


@dataclass(frozen=True)
class Launch:
    """A command and the circumstances it is started in.

    Attributes:
        command: the program and its arguments.
        env: variables set on top of `base_environment`.
        user: uid (and gid) to switch to, for want of setpriv; None stays as it is.
        directory: where it runs; None stays where the caller is.
    """

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    directory: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the process."""
        return {**base_environment(), **self.env}


@cache
def setpriv() -> str | None:
    """Return util-linux's setpriv, or None where there is none that knows the options used here."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    probe = [path, "--pdeathsig", "TERM", "--inh-caps", "+dac_override", path, "--version"]
    return path if subprocess.run(probe, capture_output=True, check=False).returncode == 0 else None


def launch(
    command: Sequence[str],
    *,
    on_parent_death: Signals,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    directory: Path | None = None,
) -> Launch:
    """Return how to start `command` so that it gets a signal when the *thread* that started it ends.

    Without setpriv (not Linux) nothing is sent: the next `stack up` finds such leftovers by their pids.

    Args:
        command: the program and its arguments.
        on_parent_death: the signal that asks this program to stop (Linux, prctl(2) PR_SET_PDEATHSIG).
        env: variables to set on top of `base_environment`.
        user: uid to run as, for a caller who is root. It keeps root's right to pass through directories
            of mode 0700 (CAP_DAC_OVERRIDE), so that neither a clone in /root nor a mktemp -d needs a chmod.
        directory: where it runs, if not where the caller is.
    """
    path = setpriv()
    if path is None:
        return Launch(command, env or {}, user, directory)
    options = ["--pdeathsig", on_parent_death.name.removeprefix("SIG")]
    if user is not None:
        options += ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
        options += ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        # access(2), by which initdb looks at its programs, leaves capabilities out of account otherwise.
        options += ["--securebits", "+no_setuid_fixup"]
    return Launch([path, *options, "--", *command], env or {}, directory=directory)


def circumstances(start: Launch) -> dict[str, Any]:
    """Return the keywords of subprocess.Popen that start it: in a session of its own, out of Ctrl-C's reach."""
    other_user = start.user is not None
    return {
        "env": start.environment(),
        "user": start.user,
        "group": start.user,
        "extra_groups": () if other_user else None,
        # Another user may not be allowed into the working directory.
        "cwd": start.directory or ("/" if other_user else None),
        "start_new_session": True,
    }


def spawn(start: Launch, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a process that writes to `log`."""
    return subprocess.Popen(start.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **circumstances(start))


def run_step(title: str, start: Launch, *, stdin: str = "", timeout_seconds: float = STEP_SECONDS_MAX) -> str:
    """Run one step of the preparation to its end.

    Args:
        title: what the step does, for the error.
        start: the command.
        stdin: what it reads.
        timeout_seconds: when to give up.

    Returns:
        What it wrote to standard output.

    Raises:
        StackError: it failed or took too long; repeats its last words.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            start.command,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            **circumstances(start),
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{title} did not end within {timeout_seconds:.0f} s") from error
    except OSError as error:
        raise StackError(f"{title} could not start: {error}") from error
    if done.returncode != 0:
        raise StackError(f"{title} failed: {_last_words(done.stderr or done.stdout)}")
    return done.stdout


def _last_words(text: str) -> str:
    """Return the last two lines in one; those of a Java stack trace say little."""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith("at ")]
    return "; ".join(telling[-2:]) or "it said nothing"


def open_log(log_file: Path) -> IO[bytes]:
    """Open a process's log for appending, making its directory."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return log_file.open("ab")


def bound_log(log_file: Path) -> None:
    """Move what a log says to `NAME.log.1`, over what was there, once it is larger than 20 MB.

    Whoever has it open goes on appending to it; what is written between the copy and the cut is lost.
    """
    if log_file.stat().st_size > LOG_BYTES_MAX:
        # A full disk is no reason to fill it further.
        with suppress(OSError):
            shutil.copyfile(log_file, log_file.with_name(f"{log_file.name}.1"))
        os.truncate(log_file, 0)
