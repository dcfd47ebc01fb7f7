"""Connections to PostgreSQL: which of several hosts, what the server must be, and a COMMIT that is never cancelled."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg
from asyncpg.exceptions import TransactionResolutionUnknownError, UndefinedObjectError

SERVER_VERSION_MIN: Final = 17
OUTCOME_UNKNOWN: Final = "COMMIT was sent and not answered: the outcome is unknown"

# RFC 8305 (Happy Eyeballs) gives the first address 250 ms. A health check has 600 ms for the whole connection.
_HEAD_START_SECONDS: Final = 0.15
_TOO_OLD: Final = f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed; upgrade the server"
_NOT_UTF8: Final = "the database's encoding must be UTF8; create one with ENCODING 'UTF8' TEMPLATE template0"
_UNREPLICATED: Final = "the commit was not waited for by synchronous standbys: it may be lost in a failover"

# By list of hosts: the host that was chosen last.
_last_chosen: dict[tuple[tuple[str, int], ...], tuple[str, int]] = {}


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


async def connect(**arguments: Any) -> UninterruptedConnection:
    """Connect as `asyncpg.connect` does, but to several hosts at once; the first suitable host is chosen.

    The host that was chosen last has a head start of 0.15 seconds.

    Args:
        arguments: of `asyncpg.connect`. `host` and `port` may be lists. `timeout`, in seconds, is for all hosts
            together. `target_session_attrs` says which hosts are suitable; the default for several hosts is
            `read-write`.

    Raises:
        UnsuitableDatabaseError: the server is too old, or the database's encoding isn't UTF8.
        asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError: no host accepted the
            connection.
        TimeoutError: no host answered within `timeout`.
    """
    hosts, ports = arguments.get("host"), arguments.get("port")
    if not isinstance(hosts, list | tuple) or not isinstance(ports, list | tuple):
        return await _connect_to_one(arguments)
    session_attrs = arguments.setdefault("target_session_attrs", "read-write")
    if session_attrs == "prefer-standby":
        seconds_max = arguments.get("timeout")
        arguments["timeout"] = seconds_max and seconds_max / 2
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
            return await connect(**{**arguments, "target_session_attrs": "standby"})
        arguments["target_session_attrs"] = "any"
    addresses = tuple(zip(hosts, ports, strict=True))
    order = sorted(addresses, key=lambda address: address != _last_chosen.get(addresses))
    hosts = [{**arguments, "host": host, "port": port} for host, port in order]
    connection, index = await _first_of(hosts, arguments.get("timeout"))
    _last_chosen[addresses] = order[index]
    return connection


async def connect_read_only(**arguments: Any) -> UninterruptedConnection:
    """Connect as `connect` does, for a session that only reads: PostgreSQL refuses a write (SQLSTATE 25006)."""
    connection = await connect(**arguments)
    try:
        # Not among `server_settings`: the server would report it, and the host would not count as `read-write`.
        await connection.execute("SET default_transaction_read_only = on", timeout=arguments.get("timeout"))
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _first_of(hosts: Sequence[dict[str, Any]], seconds_max: float | None) -> tuple[UninterruptedConnection, int]:
    attempts = [asyncio.create_task(_connect_to_one(hosts[0]))]
    chosen = None
    try:
        async with asyncio.timeout(seconds_max):
            await asyncio.wait(attempts, timeout=_HEAD_START_SECONDS)
            if not _is_connected(attempts[0]):
                attempts += [asyncio.create_task(_connect_to_one(host)) for host in hosts[1:]]
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


async def _connect_to_one(arguments: dict[str, Any]) -> UninterruptedConnection:
    try:
        connection: UninterruptedConnection = await asyncpg.connect(
            **arguments, connection_class=UninterruptedConnection
        )
    except UndefinedObjectError as error:
        # The server doesn't know a session parameter; transaction_timeout (PostgreSQL 17) is the newest of them.
        raise UnsuitableDatabaseError(f"{_TOO_OLD} ({error})") from error
    # The server reported both when the session began.
    version, encoding = connection.get_server_version(), connection.get_settings().server_encoding
    try:
        if version.major < SERVER_VERSION_MIN:
            raise UnsuitableDatabaseError(f"{_TOO_OLD}: this is {version.major}.{version.minor}")
        if encoding != "UTF8":
            raise UnsuitableDatabaseError(f"{_NOT_UTF8}: this one's is {encoding}")
    except UnsuitableDatabaseError:
        connection.terminate()
        raise
    return connection
