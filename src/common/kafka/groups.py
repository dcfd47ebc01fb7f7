"""Consumer groups as the broker has them."""

import asyncio

from common.kafka.clients import _ADMIN_TIMEOUT_SECONDS, admin_client


async def group_members(bootstrap_servers: str, group: str) -> set[str]:
    """Return the ids of the consumer group's members.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    return await asyncio.to_thread(_group_members, bootstrap_servers, group)


def _group_members(bootstrap_servers: str, group: str) -> set[str]:
    admin = admin_client(bootstrap_servers)
    try:
        futures = admin.describe_consumer_groups([group], request_timeout=_ADMIN_TIMEOUT_SECONDS)
        return {member.member_id for member in futures[group].result().members}
    finally:
        del admin
