"""Foreign records in the topic: garbage, forgeries, and events again and in the wrong order."""

import asyncio
import json
import random
import signal
from contextlib import suppress
from typing import Final

from confluent_kafka import Message
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from common.identifiers import new_id
from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from faults import records
from faults.cluster import PARTITIONS, TOPIC
from faults.field import Act, Fault, Field, session
from faults.records import INJECTED, ForeignRecord
from history_consumer.consumer.records import headers_of

_EVENTS_MAX: Final = 100
_ANY_EVENT: Final = "SELECT event_data FROM history.transaction_events ORDER BY random() LIMIT 1"


async def _litter(on: Field, fault: Fault) -> None:
    """Records that are no events, and a conflicting event: each becomes a dead letter, and no other record does."""
    rng = random.Random(fault.choice)
    async with session(on) as connection:
        # Only a version that the history has can conflict.
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
    foreign = [
        ForeignRecord(rng.randrange(PARTITIONS), rng.randbytes(3), value, reason=reason) for reason, value in values
    ]
    await asyncio.to_thread(records.write, on.cluster, foreign)


async def _deliver_again(on: Field, fault: Fault) -> None:
    """Events of the topic again, old and new: shuffled, and half of them in another partition."""
    rng = random.Random(fault.choice)
    old = await asyncio.to_thread(records.read, on.cluster, rng.randint, _EVENTS_MAX)
    new = await asyncio.to_thread(records.read, on.cluster, _latest)
    again = [_again(message, rng.choice([message.partition() or 0, rng.randrange(PARTITIONS)]))
             for message in _events([*old, *new])]  # fmt: skip
    rng.shuffle(again)
    await asyncio.to_thread(records.write, on.cluster, again)


async def _deliver_out_of_order(on: Field, fault: Fault) -> None:
    """While the consumer is frozen, its next events are written again, latest first, to other partitions."""
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


async def _transact(on: Field, fault: Fault) -> None:
    """Foreign transactions of poison or of nothing: some committed, some aborted, one open all the time."""
    rng = random.Random(fault.choice)
    lingering, passing = [
        await asyncio.to_thread(records.ForeignTransactions, on.cluster, f"foreign-{n}") for n in range(2)
    ]
    await asyncio.to_thread(lingering.begin, _poison_everywhere(rng))
    for _ in range(4):
        await asyncio.to_thread(passing.begin, _poison_everywhere(rng) if rng.random() < 0.7 else [])
        await asyncio.to_thread(passing.end, commit=rng.random() < 0.5)
        await asyncio.sleep(fault.seconds / 4)
    if rng.random() < 0.5:
        await asyncio.to_thread(lingering.end, commit=False)
    # Otherwise the broker aborts it.


def _poison_everywhere(rng: random.Random) -> list[ForeignRecord]:
    values = [("tombstone", None), ("not-json", rng.randbytes(50))]
    return [
        ForeignRecord(partition, rng.randbytes(3), value, reason=reason)
        for partition in range(PARTITIONS)
        for reason, value in [rng.choice(values)]
    ]


_SMALL_BYTES: Final = 5000
_SETTLED_SECONDS_MAX: Final = 45.0
"""Three times the limit of a relay's idle session: a relay may have been frozen meanwhile."""
_PENDING: Final = "SELECT array_agg(id) FROM wallet.outbox WHERE published_at IS NULL AND parked_at IS NULL"
_STILL_PENDING: Final = (
    "SELECT count(*) FROM wallet.outbox WHERE id = ANY ($1) AND published_at IS NULL AND parked_at IS NULL"
)


async def _acknowledge_slowly(on: Field, fault: Fault) -> None:
    """A backlog, and a broker that answers late and accepts events one by one only."""
    link = on.cluster.kafka_link
    link.silence()
    await asyncio.sleep(3 + fault.seconds)
    link.heal()
    await _take_at_most(on, _SMALL_BYTES)
    try:
        link.answer_delay_seconds = 0.06 + fault.choice % 40 / 1000
        await _until_settled(on)
    finally:
        link.heal()
        await _take_at_most(on, None)


async def _until_settled(on: Field) -> None:
    """Wait until the rows that are pending now are published or parked; a relay that only retries is stuck."""
    async with session(on) as connection:
        pending = await connection.fetchval(_PENDING) or []
        left = len(pending)
        deadline = asyncio.get_running_loop().time() + _SETTLED_SECONDS_MAX
        while left and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)
            left = await connection.fetchval(_STILL_PENDING, pending)
    if left:
        slow = f"{_SETTLED_SECONDS_MAX:.0f} s of slow answers"
        on.driver.violations.append(f"{left} of {len(pending)} rows were still pending after {slow}")


async def _take_at_most(on: Field, batch_bytes: int | None) -> None:
    """Set the topic's `max.message.bytes`, or reset it."""
    change = AlterConfigOpType.DELETE if batch_bytes is None else AlterConfigOpType.SET
    entry = ConfigEntry("max.message.bytes", str(batch_bytes or ""), incremental_operation=change)
    topic = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[entry])
    admin = admin_client(KafkaConnection(on.cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]))
    (altered,) = admin.incremental_alter_configs([topic], request_timeout=10).values()
    await asyncio.wrap_future(altered)


def _latest(low: int, high: int) -> int:
    return max(low, high - _EVENTS_MAX)


def _events(messages: list[Message]) -> list[Message]:
    """Return the records that a relay wrote."""
    return [message for message in messages if INJECTED not in dict(headers_of(message))]


def _again(message: Message, partition: int) -> ForeignRecord:
    return ForeignRecord(partition, message.key(), message.value(), list(headers_of(message)))


TOPIC_FAULTS: Final[dict[str, Act]] = {
    "litter the topic": _litter,
    "deliver again": _deliver_again,
    "transact": _transact,
    "acknowledge slowly": _acknowledge_slowly,
}

CONSUMER_FAULTS: Final[dict[str, Act]] = {"deliver out of order": _deliver_out_of_order}
