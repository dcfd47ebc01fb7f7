"""From the outbox to the topic, without processes: a test takes the steps by hand."""

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.relay import Relay
from support.outboxes import Outbox


@dataclass(frozen=True)
class RelayPipeline(Outbox):
    """An outbox, relays that publish it, and the topic that they publish to.

    A test arranges and checks with `engine`, a superuser's. `relay` and `operator` log in as their roles.
    """

    relay: AsyncEngine
    operator: AsyncEngine
    new_relay: Callable[..., Relay]
    read_topic: Callable[[], list[Message]]
