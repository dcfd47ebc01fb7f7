"""Where the group's callbacks meet the consumer's transaction."""

import threading
from typing import Any

from history_consumer.positions import Assignment, Position
from history_consumer.settings import ConsumerSettings
from history_consumer.subscription import Subscription


class Member:
    """What the callbacks are given instead of librdkafka's consumer."""

    def incremental_unassign(self, partitions: object) -> None:
        """Do nothing."""


async def test_a_partition_is_given_up_only_after_the_transaction_under_way() -> None:
    settings = ConsumerSettings(database_url="postgresql://nowhere/none", kafka_bootstrap_servers="127.0.0.1:1")
    assignment = Assignment()
    subscription = Subscription(settings, assignment)
    assignment.hold([Position(0, 5, "id"), Position(1, 5, "id")])
    revoked: Any = [Part(0)]
    giving_up = threading.Thread(target=subscription._on_revoke, args=(Member(), revoked))
    with subscription.writing():
        giving_up.start()
        giving_up.join(0.1)
        assert giving_up.is_alive()
        assert set(assignment.held) == {0, 1}
        subscription._on_lost(Member(), [Part(1)])  # type: ignore[arg-type,list-item]
        assert set(assignment.held) == {0}, "what is lost is lost at once"
    giving_up.join(10)
    assert not assignment.held
    await subscription.close(5)


class Part:
    """A partition, as the callbacks name it."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.topic, self.offset = "t", 0
