"""The state of a stack for other commands: `stack.json`, and the lock that one supervisor holds."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from walletctl.stack.errors import AlreadyRunningError, SetupError

STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"
LOCK_SECONDS_MAX = 0.5


class Status(StrEnum):
    """The status of a process."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    """It was ready, and is not ready now, or doesn't answer."""
    RESTARTING = "restarting"
    STOPPED = "stopped"


class ProcessState(BaseModel):
    """One process of the stack.

    Attributes:
        name: such as `outbox-relay-1`.
        pid: None while the process doesn't run.
        created: when the process was created, in Unix time. With the pid it identifies one process for ever.
        state: see `Status`.
        restarts: how often it was restarted since the stack's start.
        url: the address at which it answers, if it has one.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int | None = None
    created: float | None = None
    state: Status = Status.STARTING
    restarts: int = 0
    url: str | None = None

    def public(self) -> dict[str, str | int | None]:
        """Return the fields that `stack status --json` shows."""
        shown = self.model_dump(mode="json", exclude={"created"})
        return {key: value for key, value in shown.items() if key != "url" or value is not None}


class StackState(BaseModel):
    """The state of a stack, as its supervisor last wrote it. It has passwords: only its owner may read the file.

    Attributes:
        supervisor_pid: the supervisor's process id.
        ephemeral: whether the stack deletes its data.
        ports: the port of each server and service, by name.
        environment: the variables that `stack env` prints.
        auditor_url: the database's URL for the auditor.
        processes: the state of each process.
    """

    model_config = ConfigDict(frozen=True)

    supervisor_pid: int
    ephemeral: bool
    ports: dict[str, int]
    environment: dict[str, str] = {}
    auditor_url: str = ""
    processes: list[ProcessState] = []

    @property
    def ready(self) -> bool:
        """Whether every process is ready."""
        return bool(self.processes) and all(process.state is Status.READY for process in self.processes)


def read_state(data_dir: Path) -> StackState | None:
    """Return the state that the last supervisor wrote, None if there is none.

    Raises:
        SetupError: the file can't be read, or this program didn't write it.
    """
    file = data_dir / STATE_FILE
    try:
        return StackState.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(f"{file} can't be read: {reason}. Name another --data-dir") from error


def write_state(data_dir: Path, state: StackState) -> None:
    """Replace the state file atomically."""
    write_private(data_dir / STATE_FILE, state.model_dump_json(indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically by one that only its owner can read."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)  # noqa: PTH105 - `file.name` is a string


@contextmanager
def stack_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock. The kernel releases it when the process ends, even if it is killed.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    # Retried, because `lock_holder` takes the lock for an instant.
    again = Retrying(
        retry=retry_if_exception_type(AlreadyRunningError),
        stop=stop_after_delay(LOCK_SECONDS_MAX),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    descriptor: int = again(_lock, data_dir)
    try:
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _lock(data_dir: Path) -> int:
    file = data_dir / LOCK_FILE
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # An ephemeral stack deletes the file while it holds the lock: the lock must be on the present file.
        if os.stat(file).st_ino != os.fstat(descriptor).st_ino:  # noqa: PTH116 - beside fstat
            raise FileNotFoundError(file)
    except (BlockingIOError, FileNotFoundError) as error:
        pid = _written_pid(descriptor)
        os.close(descriptor)
        raise AlreadyRunningError(data_dir, pid) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def lock_holder(data_dir: Path) -> int | None:
    """Return the pid of the supervisor that holds the data directory's lock, None if it is free."""
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _written_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
