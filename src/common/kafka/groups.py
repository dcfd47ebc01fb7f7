"""Consumer groups as the broker has them."""

from common.kafka.clients import ADMIN_TIMEOUT_SECONDS, ask_broker
from common.kafka_connection import KafkaConnection


async def group_members(connection: KafkaConnection, group: str) -> set[str]:
    """Return the ids of the consumer group's members.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    answers = await ask_broker(
        connection,
        lambda admin: admin.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_SECONDS),
    )
    return {member.member_id for member in answers[group].members}
