"""How the Kafka clients of all processes are configured, and how the broker is asked a question."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from confluent_kafka.admin import AdminClient

KeyT = TypeVar("KeyT")
AnswerT = TypeVar("AnswerT")

_log = logging.getLogger("librdkafka")

ADMIN_TIMEOUT_SECONDS: Final = 10.0
"""How long the broker may take to answer one question."""


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

    Args:
        bootstrap_servers: the brokers to ask first.
        request: sends the request, and returns a future for each topic, partition or group that it names.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    return await asyncio.to_thread(_ask_broker, bootstrap_servers, request)


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
