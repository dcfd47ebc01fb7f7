"""How every Kafka client here is configured."""

import logging
from typing import Any, Final

from confluent_kafka.admin import AdminClient

_log = logging.getLogger("librdkafka")

_ADMIN_TIMEOUT_SECONDS: Final = 10.0


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
    """Return the configuration of whoever reads the topic: nothing is committed or stored by itself, ends are told.

    Read uncommitted: relays write without transactions, and a stranger's open one would hold readers who wait for its
    end. What a reader has behind its last record, markers of transactions and holes, only the partition's end tells
    (docs/decisions/0018-read-uncommitted.md).
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
    """Return an AdminClient; it connects when it is first asked something."""
    return AdminClient(client_config(bootstrap_servers, "wallet-admin"))
