"""How the Kafka clients of all processes are configured, and how the broker is asked a question."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from itertools import count
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from common.kafka.connection import KafkaConnection
from common.kafka.refusals import count_refusal, refusal_of
from common.pauses import Pauses

KeyT = TypeVar("KeyT")
AnswerT = TypeVar("AnswerT")

_log = logging.getLogger("librdkafka")
SILENT: Final = logging.getLogger("librdkafka.silent")
"""For a client whose errors reach the caller: at the command line its log lines would surround the one line."""
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False

ADMIN_TIMEOUT_SECONDS: Final = 10.0
"""How long the broker may take to answer one question."""

ELECTION_SECONDS_MAX: Final = 2.0
"""How long a question is repeated while a leader or a coordinator is elected."""

_ERRORS_SECONDS: Final = 0.05
"""How often a client that waits for its answer is asked for errors."""

# The brokers say these for a moment after a topic was created, and whenever a broker stops or starts.
_ELECTIONS: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
_ALL_BROKERS_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - librdkafka's public name
_UNANSWERED: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, _ALL_BROKERS_DOWN})  # noqa: SLF001
_ELECTION_PAUSES: Final = Pauses(0.05, 0.5)


def client_config(connection: KafkaConnection, client_id: str, **more: Any) -> dict[str, Any]:
    """Return a librdkafka configuration: bounded waits, and its own log lines through `logging`.

    The operator's file may change what the guarantees don't need. The files of secrets are read now.

    Raises:
        KafkaException: a file has become unreadable or wrong since the process started.
    """
    try:
        connecting = connection.properties()
    except ValueError as error:
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, str(error))) from None  # noqa: SLF001
    return {
        "client.id": client_id,
        "logger": _log,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 5_000,
        "allow.auto.create.topics": False,
        **more,
        **connecting,
    }


def reader_config(connection: KafkaConnection, client_id: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of a client that reads the topic.

    The client commits and stores no offset by itself, and reports the end of each partition. It reads uncommitted:
    relays write without transactions, and a reader of committed records waits for the end of any open transaction.
    Markers of transactions and holes may follow the last record of a partition. Only the reported end shows how far
    they reach (docs/decisions/0018-read-uncommitted.md).
    """
    return client_config(
        connection,
        client_id,
        **{
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **more,
        },
    )


def admin_client(connection: KafkaConnection, **more: Any) -> AdminClient:
    """Return an AdminClient. It connects with its first request."""
    return AdminClient(client_config(connection, "wallet-admin", **more))


async def ask_broker(
    connection: KafkaConnection, request: Callable[[AdminClient], Mapping[KeyT, "Future[AnswerT]"]]
) -> dict[KeyT, AnswerT]:
    """Return the broker's answers to one request of a client made for it.

    While a leader or a coordinator is elected, the request is repeated for up to two seconds. So an election alone
    does not make a process unready.

    Args:
        connection: the brokers to ask first, and how to connect.
        request: sends the request, and returns a future for each topic, partition or group that it names.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + ELECTION_SECONDS_MAX
    for times in count(1):
        try:
            return await asyncio.to_thread(_ask_broker, connection, request)
        except KafkaException as error:
            if error.args[0].code() not in _ELECTIONS or clock() >= deadline:
                count_refusal(error.args[0])
                raise
        await asyncio.sleep(_ELECTION_PAUSES.after(times))
    raise AssertionError("the last attempt returns or raises")


def _ask_broker(
    connection: KafkaConnection, request: Callable[[AdminClient], Mapping[KeyT, "Future[AnswerT]"]]
) -> dict[KeyT, AnswerT]:
    errors: list[KafkaError] = []
    # A new client takes 1.3 ms of processor time. One that is kept, and finds no broker while its only broker
    # restarts, may never ask again (librdkafka's issue 5301).
    admin = admin_client(connection, error_cb=errors.append, logger=SILENT)
    try:
        answers = request(admin)
        while wait(answers.values(), _ERRORS_SECONDS).not_done and not _is_refused_by_all(errors):
            admin.poll(0)
        if (why := _why(errors)) and any(map(_is_unanswered, answers.values())):
            raise KafkaException(why)
        return {key: answer.result() for key, answer in answers.items()}
    finally:
        # An error's traceback must not keep the client: its end may block, and belongs in this thread.
        del admin


def _is_refused_by_all(errors: Sequence[KafkaError]) -> bool:
    """Whether no broker is left that may answer, because of a refusal. The client itself waits for its time-out."""
    return _are_down(errors) and any(map(refusal_of, errors))


def _why(errors: Sequence[KafkaError]) -> KafkaError | None:
    """Return the client's error that says why no broker answers. That of the answer says only that none came."""
    refusals = [error for error in errors if refusal_of(error)]
    if refusals:
        return refusals[-1]
    if _are_down(errors) and {error.code() for error in errors} == {_ALL_BROKERS_DOWN}:
        return KafkaError(_ALL_BROKERS_DOWN, "the brokers end each connection (is KAFKA_SECURITY_PROTOCOL as theirs?)")
    return None


def _are_down(errors: Sequence[KafkaError]) -> bool:
    return any(error.code() == _ALL_BROKERS_DOWN for error in errors)


def _is_unanswered(answer: "Future[Any]") -> bool:
    error = answer.exception() if answer.done() else None
    return not answer.done() or (isinstance(error, KafkaException) and error.args[0].code() in _UNANSWERED)
