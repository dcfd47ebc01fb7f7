"""Connections to PostgreSQL: which of several hosts, what the server must be, and a COMMIT that is never cancelled."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import asyncpg
from asyncpg.exceptions import TransactionResolutionUnknownError

from common.postgres import tls
from common.postgres.url_files import unusable_file
from common.postgres.urls import ConnectionUrl, Host, parse_url
from common.secrets import Secret, UnreadableSecretError

SERVER_VERSION_MIN: Final = 17
OUTCOME_UNKNOWN: Final = "COMMIT was sent and not answered: the outcome is unknown"

# RFC 8305 (Happy Eyeballs) gives the first address 250 ms. A health check has 600 ms for the whole connection.
_HEAD_START_SECONDS: Final = 0.15
_TOO_OLD: Final = f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed; upgrade the server"
_NOT_UTF8: Final = "the database's encoding must be UTF8; create one with ENCODING 'UTF8' TEMPLATE template0"
_UNREPLICATED: Final = "the commit was not waited for by synchronous standbys: it may be lost in a failover"
_POOLER: Final = (
    "a connection pooler (PgBouncer) drops the session's settings: name PostgreSQL itself in the URL; "
    "each process has a bounded pool of its own"
)
_SESSION_MARK: Final = "wallet.session"
# PostgreSQL manual, appendix A: an unknown setting, a wrong value, a wrong option, a setting that can't be changed.
_WRONG_SETTINGS: Final = ("42704", "22023", "42601", "55P02")

# By list of hosts: the host that was chosen last.
_last_chosen: dict[tuple[Host, ...], Host] = {}


class UnsuitableDatabaseError(ConnectionError):
    """The database can't keep what this system promises; the message names the remedy."""


class UninterruptedConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that never sends a cancel request: when an await is cancelled, the socket is closed instead.

    A cancel request is for the session, not for one statement, so it may reach the COMMIT. A COMMIT that waits for
    synchronous standbys then becomes visible, though they don't have it (PostgreSQL manual, section 26.2.8). Neither
    statement_timeout nor transaction_timeout ends that wait. The server ends any other statement of a closed
    connection within `client_connection_check_interval`.
    """

    __slots__ = ("_is_unreplicated",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_unreplicated = False

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Run a statement as asyncpg does. An error that interrupts a COMMIT gets the note `OUTCOME_UNKNOWN`.

        Raises:
            TransactionResolutionUnknownError: the server stopped waiting for its standbys.
        """
        try:
            status: str = await super().execute(query, *args, **options)
            if self._is_unreplicated:
                self.terminate()
                raise TransactionResolutionUnknownError(_UNREPLICATED)
        except BaseException as error:
            if query.startswith("COMMIT") and not _is_server_reply(error):
                error.add_note(OUTCOME_UNKNOWN)
            raise
        return status

    def _cancel_current_command(self, waiter: object, cancel_waiter: object = None) -> None:
        # asyncpg calls this for each statement whose await is cancelled or times out.
        del waiter, cancel_waiter
        self._transport.abort()

    def _process_log_message(self, fields: dict[str, str], last_query: str) -> None:
        # pg_cancel_backend ends the wait for standbys, and the COMMIT succeeds. The message may be in any language.
        if fields.get("F") == "syncrep.c":
            self._is_unreplicated = True
        super()._process_log_message(fields, last_query)


def _is_server_reply(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None)
    # The driver raises class 08 for a lost connection. Class 57P ends sessions.
    return state is not None and not state.startswith(("08", "57P"))


def is_outcome_unknown(error: BaseException | None) -> bool:
    """Whether a COMMIT was interrupted, so that it may or may not have been done."""
    while error is not None:
        if OUTCOME_UNKNOWN in getattr(error, "__notes__", ()) or isinstance(error, TransactionResolutionUnknownError):
            return True
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return False


async def connect(
    url: Secret, application: str, settings: Mapping[str, str], *, timeout_seconds: float | None, on_standby: bool
) -> UninterruptedConnection:
    """Connect as `asyncpg.connect` does, but to several hosts at once; the first suitable host is chosen.

    The host that was chosen last has a head start of 0.15 seconds. The URL and the files that it names are read anew:
    a password or a certificate may have been rotated.

    Args:
        url: of the database. Its `target_session_attrs` says which hosts are suitable; the default for several hosts is
            `read-write`.
        application: the process, which `pg_stat_activity.application_name` shows.
        settings: the session's settings. They override those that the URL has in its `options`.
        timeout_seconds: for all hosts together.
        on_standby: whether of several hosts any one will do, unless the URL has `target_session_attrs`.

    Raises:
        UnsuitableDatabaseError: the server is too old, has no TLS or another certificate, or isn't PostgreSQL itself;
            the database's encoding isn't UTF8; or the URL, or a file with it or of it, is missing or wrong.
        asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError: no host accepted the
            connection.
        TimeoutError: no host answered in time.
    """
    parsed = _read(url)
    seconds_max = parsed.timeout_seconds(timeout_seconds)
    arguments = parsed.driver_arguments() | {
        "server_settings": {**parsed.session_settings(application), **settings},
        "target_session_attrs": parsed.parameters.get("target_session_attrs"),
        **_tls_arguments(parsed),
    }
    if len(parsed.hosts) < 2:  # noqa: PLR2004 one host, or none
        (host, port), *_ = parsed.hosts or (("", None),)
        async with asyncio.timeout(seconds_max):
            return await _connect_to_host({**arguments, "host": host or None, "port": port})
    arguments["target_session_attrs"] = arguments["target_session_attrs"] or ("any" if on_standby else "read-write")
    return await _connect_to_one_of(parsed.hosts, arguments, seconds_max)


async def connect_read_only(*arguments: Any, **options: Any) -> UninterruptedConnection:
    """Connect as `connect` does, for a session that only reads: PostgreSQL refuses a write (SQLSTATE 25006)."""
    connection = await connect(*arguments, **options)
    try:
        # Not among `server_settings`: the server would report it, and the host would not count as `read-write`.
        await connection.execute("SET default_transaction_read_only = on", timeout=options["timeout_seconds"])
    except BaseException:
        connection.terminate()
        raise
    return connection


def _tls_arguments(url: ConnectionUrl) -> dict[str, Any]:
    if wrong := unusable_file(url.parameters):
        raise UnsuitableDatabaseError(wrong)
    try:
        return tls.driver_arguments(url.parameters)
    except OSError as error:
        raise UnsuitableDatabaseError(tls.tls_refusal(error) or str(error)) from error


def _read(url: Secret) -> ConnectionUrl:
    # The settings were checked when the process started. Their files have changed since.
    try:
        return parse_url(url.read())
    except UnreadableSecretError as error:
        raise UnsuitableDatabaseError(str(error)) from error
    except ValueError as error:
        raise UnsuitableDatabaseError(f"the database's URL {error}") from error


async def _connect_to_one_of(
    hosts: tuple[Host, ...], arguments: dict[str, Any], seconds_max: float | None
) -> UninterruptedConnection:
    if arguments["target_session_attrs"] == "prefer-standby":
        seconds_max = seconds_max and seconds_max / 2
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
            return await _connect_to_one_of(hosts, {**arguments, "target_session_attrs": "standby"}, seconds_max)
        arguments = {**arguments, "target_session_attrs": "any"}
    order = sorted(hosts, key=lambda host: host != _last_chosen.get(hosts))
    attempts = [{**arguments, "host": host, "port": port} for host, port in order]
    connection, index = await _first_of(attempts, seconds_max)
    _last_chosen[hosts] = order[index]
    return connection


async def _first_of(hosts: Sequence[dict[str, Any]], seconds_max: float | None) -> tuple[UninterruptedConnection, int]:
    attempts = [asyncio.create_task(_connect_to_host(hosts[0]))]
    chosen = None
    try:
        async with asyncio.timeout(seconds_max):
            await asyncio.wait(attempts, timeout=_HEAD_START_SECONDS)
            if not _is_connected(attempts[0]):
                attempts += [asyncio.create_task(_connect_to_host(host)) for host in hosts[1:]]
            pending = set(attempts)
            while pending and not any(map(_is_connected, attempts)):
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        chosen = next(filter(_is_connected, attempts), None)
        if chosen is None:
            raise _most_informative(attempts)
        return chosen.result(), attempts.index(chosen)
    except TimeoutError as error:
        # One host was silent. Another one may have said why it refused the connection.
        raise _most_informative(attempts) from error
    finally:
        for attempt in attempts:
            if attempt is not chosen:
                attempt.add_done_callback(_close_unchosen)
                attempt.cancel()


def _is_connected(attempt: asyncio.Task[UninterruptedConnection]) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


def _close_unchosen(attempt: asyncio.Task[UninterruptedConnection]) -> None:
    if _is_connected(attempt):
        attempt.result().terminate()


def _most_informative(attempts: Sequence[asyncio.Task[UninterruptedConnection]]) -> BaseException:
    errors = [error for attempt in attempts if attempt.done() and (error := attempt.exception())]
    refusals = (error for error in errors if isinstance(error, asyncpg.PostgresError | UnsuitableDatabaseError))
    return next(refusals, errors[0] if errors else TimeoutError("no host answered in time"))


async def _connect_to_host(arguments: dict[str, Any]) -> UninterruptedConnection:
    mark = uuid4().hex
    settings = {**arguments["server_settings"], _SESSION_MARK: mark}
    try:
        connection: UninterruptedConnection = await asyncpg.connect(
            **{**arguments, "server_settings": settings}, timeout=None, connection_class=UninterruptedConnection
        )
    except (asyncpg.PostgresError, ValueError, KeyError, OSError) as error:
        if refusal := _refusal(error):
            raise UnsuitableDatabaseError(refusal) from error
        raise
    try:
        if unsuitable := await _unsuitable(connection, mark):
            raise UnsuitableDatabaseError(unsuitable)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _refusal(error: BaseException) -> str | None:
    """Return what an operator has to correct, or None for another error."""
    state, message = getattr(error, "sqlstate", None), " ".join(str(error).split())
    if state == "08P01" and "startup parameter" in message:
        return f"{_POOLER} ({message})"
    if state in _WRONG_SETTINGS:
        # transaction_timeout (PostgreSQL 17) is the newest setting of each session.
        is_old = "transaction_timeout" in message
        return f"{_TOO_OLD} ({message})" if is_old else f"a setting is refused: {message} (correct options in the URL)"
    if isinstance(error, KeyError):
        # getpass.getuser: neither the URL nor PGUSER names a user.
        return "this process's user has no name: put a user into the URL"
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return f"{message} (correct the URL, or the variable that begins with PG)"
    return tls.tls_refusal(error)


async def _unsuitable(connection: UninterruptedConnection, mark: str) -> str | None:
    # The server reported both when the session began.
    version, encoding = connection.get_server_version(), connection.get_settings().server_encoding
    if version.major < SERVER_VERSION_MIN:
        return f"{_TOO_OLD}: this is {version.major}.{version.minor}"
    if encoding != "UTF8":
        return f"{_NOT_UTF8}: this one's is {encoding}"
    # Not a prepared statement: a pooler may give each of its steps to another server.
    is_own = f"SELECT WHERE current_setting('{_SESSION_MARK}', true) = '{mark}'"
    return None if await connection.execute(is_own) == "SELECT 1" else _POOLER
