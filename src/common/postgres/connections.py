"""Connections to PostgreSQL: which of several hosts, what the server must be, and a COMMIT that is never cancelled."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg
from asyncpg.exceptions import TransactionResolutionUnknownError, UndefinedObjectError

SERVER_VERSION_MIN: Final = 17
OUTCOME_UNKNOWN: Final = "COMMIT was sent and not answered: the outcome is unknown"

# RFC 8305 (Happy Eyeballs) gives the first address 250 ms. The pulse has 600 ms for the whole connection.
_HEAD_START_SECONDS: Final = 0.15
_TOO_OLD: Final = f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed; upgrade the server"
_NOT_UTF8: Final = "the database's encoding must be UTF8; create one with ENCODING 'UTF8' TEMPLATE template0"
_UNREPLICATED: Final = "the commit was not waited for by synchronous standbys: it may be lost in a failover"

# Which of a list of hosts was the one, the last time.
_last_chosen: dict[tuple[tuple[str, int], ...], tuple[str, int]] = {}


class UnsuitableDatabaseError(ConnectionError):
    """The database can't keep what this system promises; the message says what to do."""


class UninterruptedConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is given up by closing its socket: it never sends a cancel request.

    A cancel request is for the session, not for one statement: it may meet the COMMIT. A COMMIT that waits for
    synchronous standbys is then visible, though they don't have it (PostgreSQL manual, section 26.2.8). Neither
    statement_timeout nor transaction_timeout ends that wait. Whatever else the session was at when its client left
    ends within `client_connection_check_interval`.
    """

    __slots__ = ("_is_unreplicated",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_unreplicated = False

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Run a statement as asyncpg does. What interrupts a COMMIT has the note `OUTCOME_UNKNOWN` from then on.

        Raises:
            TransactionResolutionUnknownError: the server gave up waiting for its standbys.
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
        # An operator's pg_cancel_backend ends the wait, and the COMMIT succeeds. The text may be in any language.
        if fields.get("F") == "syncrep.c":
            self._is_unreplicated = True
        super()._process_log_message(fields, last_query)


def _is_server_reply(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None)
    # Class 08 is the driver's word for a lost connection; class 57P ends sessions.
    return state is not None and not state.startswith(("08", "57P"))


def is_outcome_unknown(error: BaseException | None) -> bool:
    """Whether a COMMIT was interrupted: it may have been done or not."""
    while error is not None:
        if OUTCOME_UNKNOWN in getattr(error, "__notes__", ()) or isinstance(error, TransactionResolutionUnknownError):
            return True
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return False


async def connect(**arguments: Any) -> UninterruptedConnection:
    """Connect as `asyncpg.connect` does, but to several hosts at once: the first that is wanted is taken.

    The host that was it the last time has a head start of 0.15 seconds.

    Args:
        arguments: of `asyncpg.connect`; `host` and `port` may be lists, `timeout` is for all hosts together, and
            `target_session_attrs` says what is wanted: left out, of several hosts one that can write.

    Raises:
        UnsuitableDatabaseError: the server is too old, or the database's encoding isn't UTF8.
        asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError: no host took it.
        TimeoutError: no host answered within `timeout`.
    """
    hosts, ports = arguments.get("host"), arguments.get("port")
    if not isinstance(hosts, list | tuple) or not isinstance(ports, list | tuple):
        return await _connect_to_one(arguments)
    wanted = arguments.setdefault("target_session_attrs", "read-write")
    if wanted == "prefer-standby":
        seconds_max = arguments.get("timeout")
        arguments["timeout"] = seconds_max and seconds_max / 2
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
            return await connect(**{**arguments, "target_session_attrs": "standby"})
        arguments["target_session_attrs"] = "any"
    places = tuple(zip(hosts, ports, strict=True))
    order = sorted(places, key=lambda place: place != _last_chosen.get(places))
    one_each = [{**arguments, "host": host, "port": port} for host, port in order]
    connection, index = await _first_of(one_each, arguments.get("timeout"))
    _last_chosen[places] = order[index]
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
        # One host was silent, and another one may have said why it doesn't take us.
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
    said = (error for error in errors if isinstance(error, asyncpg.PostgresError | UnsuitableDatabaseError))
    return next(said, errors[0] if errors else TimeoutError("no host answered in time"))


async def _connect_to_one(arguments: dict[str, Any]) -> UninterruptedConnection:
    try:
        connection: UninterruptedConnection = await asyncpg.connect(
            **arguments, connection_class=UninterruptedConnection
        )
    except UndefinedObjectError as error:
        # A parameter that a session begins with is unknown, and transaction_timeout is the newest.
        raise UnsuitableDatabaseError(f"{_TOO_OLD} ({error})") from error
    # Both were reported when the session began.
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
