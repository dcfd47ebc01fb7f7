"""How the Kafka clients of all processes are configured, and how the broker is asked a question."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from itertools import count
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from common.pauses import Pauses

KeyT = TypeVar("KeyT")
AnswerT = TypeVar("AnswerT")

_log = logging.getLogger("librdkafka")

ADMIN_TIMEOUT_SECONDS: Final = 10.0
"""How long the broker may take to answer one question."""

ELECTION_SECONDS_MAX: Final = 2.0
"""How long a question is repeated while a leader or a coordinator is elected."""

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
_ELECTION_PAUSES: Final = Pauses(0.05, 0.5)


def client_config(bootstrap_servers: str, client_id: str, **more: Any) -> dict[str, Any]:
    """Return a librdkafka configuration: bounded waits, and its own log lines through `logging`."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": client_id,
        "logger": _log,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 5_000,
        "allow.auto.create.topics": False,
        **more,
    }


def reader_config(bootstrap_servers: str, client_id: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of a client that reads the topic.

    The client commits and stores no offset by itself, and reports the end of each partition. It reads uncommitted:
    relays write without transactions, and a reader of committed records waits for the end of any open transaction.
    Markers of transactions and holes may follow the last record of a partition. Only the reported end shows how far
    they reach (docs/decisions/0018-read-uncommitted.md).
    """
    return client_config(
        bootstrap_servers,
        client_id,
        **{
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **more,
        },
    )


def admin_client(bootstrap_servers: str) -> AdminClient:
    """Return an AdminClient. It connects with its first request."""
    return AdminClient(client_config(bootstrap_servers, "wallet-admin"))


async def ask_broker(
    bootstrap_servers: str, request: Callable[[AdminClient], Mapping[KeyT, "Future[AnswerT]"]]
) -> dict[KeyT, AnswerT]:
    """Return the broker's answers to one request of a client made for it.

    While a leader or a coordinator is elected, the request is repeated for up to two seconds. So an election alone
    does not make a process unready.

    Args:
        bootstrap_servers: the brokers to ask first.
        request: sends the request, and returns a future for each topic, partition or group that it names.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + ELECTION_SECONDS_MAX
    for times in count(1):
        try:
            return await asyncio.to_thread(_ask_broker, bootstrap_servers, request)
        except KafkaException as error:
            if error.args[0].code() not in _ELECTIONS or clock() >= deadline:
                raise
        await asyncio.sleep(_ELECTION_PAUSES.after(times))
    raise AssertionError("the last attempt returns or raises")


def _ask_broker(
    bootstrap_servers: str, request: Callable[[AdminClient], Mapping[KeyT, "Future[AnswerT]"]]
) -> dict[KeyT, AnswerT]:
    # A new client takes 1.3 ms of processor time. One that is kept, and finds no broker while its only broker
    # restarts, may never ask again (librdkafka's issue 5301).
    admin = admin_client(bootstrap_servers)
    try:
        return {key: answer.result() for key, answer in request(admin).items()}
    finally:
        # An error's traceback must not keep the client: its end may block, and belongs in this thread.
        del admin
