"""Consumer groups as the broker has them."""

from common.kafka.clients import ADMIN_TIMEOUT_SECONDS, ask_broker
from common.kafka.connection import KafkaConnection


async def partitions_by_member(connection: KafkaConnection, group: str, topic: str) -> dict[str, set[int]]:
    """Return the partitions of the topic that each member of the consumer group has, by the member's id.

    While a group of the classic protocol rebalances, the broker lists its members without partitions.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    answers = await ask_broker(
        connection,
        lambda admin: admin.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_SECONDS),
    )
    return {
        member.member_id: {part.partition for part in member.assignment.topic_partitions if part.topic == topic}
        for member in answers[group].members
    }
