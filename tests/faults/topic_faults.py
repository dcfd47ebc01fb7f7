"""What is in the topic and no relay wrote: garbage, forgeries, and events once more and in the wrong order."""

import asyncio
import json
import random
import signal
from contextlib import suppress
from typing import Final

from confluent_kafka import Message

from common.identifiers import new_id
from faults import records
from faults.cluster import PARTITIONS
from faults.field import Act, Fault, Field, session
from faults.records import INJECTED, Record
from history_consumer.records import headers_of

_EVENTS_MAX: Final = 100
_ANY_EVENT: Final = "SELECT event_data FROM history.transaction_events ORDER BY random() LIMIT 1"


async def _litter(on: Field, fault: Fault) -> None:
    """Records that are no events, and one that claims what another event has: each is to be put aside, alone."""
    rng = random.Random(fault.choice)
    async with session(on) as connection:
        # Only what the history has can be claimed a second time.
        while (told := await connection.fetchval(_ANY_EVENT)) is None:
            await asyncio.sleep(0.1)
    forged = json.loads(told)
    forged["event_id"] = str(new_id())
    later = {**forged, "schema_version": 2}
    values = [
        ("tombstone", None),
        ("not-json", b""),
        ("not-json", rng.randbytes(50)),
        ("not-json", b"[" * 1000),
        ("unknown-type", b'{"event_type": "WALLET_SOLD"}'),
        ("wrong-shape", json.dumps({**forged, "wallets": []}).encode()),
        ("wrong-version", json.dumps(later).encode()),
        ("version-conflict", json.dumps(forged).encode()),
    ]
    litter = [Record(rng.randrange(PARTITIONS), rng.randbytes(3), value, reason=reason) for reason, value in values]
    await asyncio.to_thread(records.write, on.cluster, litter)


async def _deliver_again(on: Field, fault: Fault) -> None:
    """Events that the topic has, old and new, once more: shuffled, and half of them in another partition."""
    rng = random.Random(fault.choice)
    old = await asyncio.to_thread(records.read, on.cluster, rng.randint, _EVENTS_MAX)
    new = await asyncio.to_thread(records.read, on.cluster, _latest)
    again = [_again(message, rng.choice([message.partition() or 0, rng.randrange(PARTITIONS)]))
             for message in _events([*old, *new])]  # fmt: skip
    rng.shuffle(again)
    await asyncio.to_thread(records.write, on.cluster, again)


async def _deliver_out_of_order(on: Field, fault: Fault) -> None:
    """While the consumer is frozen, what it will find is written once more, latest first, in other partitions."""
    rng = random.Random(fault.choice)
    consumer = on.cluster.first("history-consumer").child
    assert consumer is not None
    with suppress(ProcessLookupError):
        consumer.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.5 + fault.seconds)
        latest = _events(await asyncio.to_thread(records.read, on.cluster, _latest))
        latest.sort(key=lambda message: message.timestamp()[1], reverse=True)
        again = [_again(message, rng.randrange(PARTITIONS)) for message in latest]
        await asyncio.to_thread(records.write, on.cluster, again)
    finally:
        consumer.send_signal(signal.SIGCONT)


def _latest(low: int, high: int) -> int:
    return max(low, high - _EVENTS_MAX)


def _events(messages: list[Message]) -> list[Message]:
    """Return those that a relay wrote."""
    return [message for message in messages if INJECTED not in dict(headers_of(message))]


def _again(message: Message, partition: int) -> Record:
    return Record(partition, message.key(), message.value(), list(headers_of(message)))


TOPIC_FAULTS: Final[dict[str, Act]] = {
    "litter the topic": _litter,
    "deliver again": _deliver_again,
}

CONSUMER_FAULTS: Final[dict[str, Act]] = {"deliver out of order": _deliver_out_of_order}
