"""Starts the stack's processes: as which user, and so that they never outlive their parent."""

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
    """A command, with the environment, user and directory to start it in.

    Attributes:
        command: the program and its arguments.
        env: variables set on top of `base_environment`.
        user: uid (and gid) to switch to where there is no setpriv; None keeps the caller's.
        directory: the working directory; None keeps the caller's.
    """

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    directory: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return the complete environment of the process."""
        return {**base_environment(), **self.env}


@cache
def setpriv() -> str | None:
    """Return util-linux's setpriv; None if it is missing or lacks an option that is used here."""
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

    Without setpriv (not Linux) it gets no signal: the next `stack up` finds the process by its pid.

    Args:
        command: the program and its arguments.
        on_parent_death: the signal that it gets (Linux, prctl(2) PR_SET_PDEATHSIG).
        env: variables to set on top of `base_environment`.
        user: uid to run as, if the caller is root. It keeps root's right to enter directories of mode 0700
            (CAP_DAC_OVERRIDE), so that neither a clone in /root nor a mktemp -d needs a chmod.
        directory: the working directory, if it isn't the caller's.
    """
    path = setpriv()
    if path is None:
        return Launch(command, env or {}, user, directory)
    options = ["--pdeathsig", on_parent_death.name.removeprefix("SIG")]
    if user is not None:
        options += ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
        options += ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        # Without it, access(2) ignores capabilities, and initdb uses access(2) to find its programs.
        options += ["--securebits", "+no_setuid_fixup"]
    return Launch([path, *options, "--", *command], env or {}, directory=directory)


def popen_keywords(start: Launch) -> dict[str, Any]:
    """Return the keywords of subprocess.Popen that start it, in its own session, where Ctrl-C doesn't reach it."""
    other_user = start.user is not None
    return {
        "env": start.environment(),
        "user": start.user,
        "group": start.user,
        "extra_groups": () if other_user else None,
        # The other user may lack access to the working directory.
        "cwd": start.directory or ("/" if other_user else None),
        "start_new_session": True,
    }


def spawn(start: Launch, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a process that writes to `log`."""
    return subprocess.Popen(start.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **popen_keywords(start))


def run_step(title: str, start: Launch, *, stdin: str = "", timeout_seconds: float = STEP_SECONDS_MAX) -> str:
    """Run one step of the preparation and wait for its end.

    Args:
        title: the step's name, for errors.
        start: the command.
        stdin: its standard input.
        timeout_seconds: its time limit.

    Returns:
        Its standard output.

    Raises:
        StackError: it failed, or took too long; the message has its last lines.
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
            **popen_keywords(start),
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{title} did not end within {timeout_seconds:.0f} s") from error
    except OSError as error:
        raise StackError(f"{title} could not start: {error}") from error
    if done.returncode != 0:
        raise StackError(f"{title} failed: {_last_lines(done.stderr or done.stdout)}")
    return done.stdout


def _last_lines(text: str) -> str:
    """Return the last two lines, joined; lines of a Java stack trace are left out."""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith("at ")]
    return "; ".join(telling[-2:]) or "it wrote no output"


def open_log(log_file: Path) -> IO[bytes]:
    """Open a process's log for appending; create its directory."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return log_file.open("ab")


def bound_log(log_file: Path) -> None:
    """Once a log is larger than 20 MB, copy it over `NAME.log.1` and truncate it.

    The process that has it open goes on appending. Lines written between the copy and the truncation are lost.
    """
    if log_file.stat().st_size > LOG_BYTES_MAX:
        # The log is truncated even if the disk is too full for the copy.
        with suppress(OSError):
            shutil.copyfile(log_file, log_file.with_name(f"{log_file.name}.1"))
        os.truncate(log_file, 0)
