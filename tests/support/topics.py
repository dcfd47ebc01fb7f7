"""A topic for one test, or for a module's tests."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from common.kafka.topics import ensure_topic

TOPIC_PARTITIONS = 3


@contextmanager
def fresh_topic(admin: AdminClient) -> Iterator[str]:
    """Create a topic with three partitions, and delete it after the block."""
    name = f"wallet_events_{uuid4().hex}"
    asyncio.run(ensure_topic(admin, name, TOPIC_PARTITIONS, {}))
    # The broker learns of the topic from the controller, a moment after that has made it.
    while name not in admin.list_topics(timeout=10).topics:
        time.sleep(0.005)
    yield name
    for future in admin.delete_topics([name]).values():
        with suppress(Exception):
            future.result()
