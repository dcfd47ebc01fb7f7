"""Events of invented wallets, in the order of their versions."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from confluent_kafka import Message, Producer
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.kinds import HoldEvent, TransactionEvent
from common.events.models import AnyEvent, HoldCaptured, WalletCreated, transaction_event
from common.events.parts import HoldState, WalletChange
from common.identifiers import new_id
from history_consumer.consumer import queries
from history_consumer.consumer.batch_writes import Target, write_batch
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import record_of

TRACEPARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("traceparent", TRACEPARENT.encode()),
    ("odd", b"\xff"),
    ("none", None),
]


@dataclass
class Wallet:
    """A wallet in EUR that makes its own events."""

    user_id: str = "ada"
    id: UUID = field(default_factory=new_id)
    version: int = 0
    balance: Decimal = Decimal("0.00")

    def change(
        self, amount: str | None, direction: Literal["in", "out"] | None, *, has_own_amount: bool = False
    ) -> WalletChange:
        self.version += 1
        if amount is not None:
            self.balance += Decimal(amount) if direction == "in" else -Decimal(amount)
        return WalletChange(
            wallet_id=self.id,
            user_id=self.user_id,
            version=self.version,
            balance_after=f"{self.balance:.2f}",
            direction=direction,
            amount=amount if has_own_amount else None,
        )

    def created(self) -> WalletCreated:
        return WalletCreated(
            event_id=new_id(),
            created_at=datetime.now(UTC),
            currency="EUR",
            metadata={"größe": "❤"},
            external_id=None,
            wallets=[self.change(None, None)],
        )

    def funded(self, amount: str = "10.00") -> TransactionEvent:
        return self._moved("FUND", amount, "salary", [self.change(amount, "in")])

    def withdrawn(self, amount: str = "1.00") -> TransactionEvent:
        return self._moved("WITHDRAW", amount, "payout", [self.change(amount, "out")])

    def split(self, *legs: "tuple[Wallet, str]") -> TransactionEvent:
        amount = f"{sum(Decimal(amount) for _, amount in legs):.2f}"
        received = [receiver.change(amount, "in", has_own_amount=True) for receiver, amount in legs]
        return self._moved("SPLIT", amount, "shares", [self.change(amount, "out"), *received])

    def held(
        self, model: type[HoldEvent], receiver: "Wallet | None" = None, amount: str = "1.00", **details: str | None
    ) -> TransactionEvent:
        """Return an event of a hold: only a capture moves money."""
        is_capture = model is HoldCaptured
        own = self.change(amount if is_capture else None, "out" if is_capture else None)
        hold = HoldState(
            id=new_id(),
            wallet_id=self.id,
            to_wallet_id=receiver and receiver.id,
            amount=amount,
            capture_max=amount,
            captured="0.00",
            remaining="0.00",
            status="open",
            expires_at=datetime.now(UTC),
        )
        changes = [own, *([receiver.change(amount, "in")] if receiver else [])]
        return self._moved(model.transaction_type, amount, None, changes, hold=hold, **details)

    def reversed(self, payer: "Wallet | None" = None, amount: str = "1.00") -> TransactionEvent:
        """Return the event of a reversal: this wallet gives back, to the payer or to the world."""
        changes = [self.change(amount, "out"), *([payer.change(amount, "in")] if payer else [])]
        return self._moved("REVERSAL", amount, None, changes, reverses_transaction_id=new_id(), reason="a test")

    def got_back(self, *legs: "tuple[Wallet, str]", amount: str = "1.00") -> TransactionEvent:
        """Return the event of a reversal in which several wallets give back to this one, or the world does."""
        if legs:
            amount = f"{sum(Decimal(part) for _, part in legs):.2f}"
        gave = [receiver.change(part, "out", has_own_amount=True) for receiver, part in legs]
        changes = [self.change(amount, "in"), *gave]
        return self._moved("REVERSAL", amount, None, changes, reverses_transaction_id=new_id(), reason="a test")

    def sent(self, receiver: "Wallet", amount: str = "1.00") -> TransactionEvent:
        return self._moved("TRANSFER", amount, None, [self.change(amount, "out"), receiver.change(amount, "in")])

    @staticmethod
    def _moved(
        transaction_type: str, amount: str, reference: str | None, changes: list[WalletChange], **details: Any
    ) -> TransactionEvent:
        return transaction_event(
            transaction_type,
            event_id=new_id(),
            created_at=datetime.now(UTC),
            currency="EUR",
            metadata={},
            transaction_id=new_id(),
            amount=amount,
            reference=reference,
            wallets=changes,
            **details,
        )

    def restated(self, transaction_type: str, **details: Any) -> TransactionEvent:
        """Return the event of a change of the status."""
        return transaction_event(
            transaction_type,
            event_id=new_id(),
            created_at=datetime.now(UTC),
            currency="EUR",
            metadata={},
            transaction_id=new_id(),
            reference="ticket 12",
            wallets=[self.change(None, None)],
            reason="a test",
            **details,
        )


@dataclass
class Topic:
    """A topic to produce to."""

    bootstrap_servers: str
    name: str

    def produce(self, *values: AnyEvent | bytes | None, partition: int = 0, source_epoch: bytes = b"") -> None:
        """Produce the values to one partition, in order, and wait until the broker has confirmed them."""
        headers = [*HEADERS, *([("ce_sourceepoch", source_epoch)] if source_epoch else [])]
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True})
        for value in values:
            encoded = value if value is None or isinstance(value, bytes) else value.encode().encode()
            producer.produce(self.name, key=b"k\xff", value=encoded, partition=partition, headers=headers)
        assert producer.flush(20) == 0


class History:
    """Writes events into the history without a broker."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.position: Position | None = None

    async def add(self, *events: AnyEvent) -> None:
        if self.position is None:
            async with self.engine.begin() as connection:
                (self.position,) = await queries.ensure_positions(connection, "tests", "topic", "id", [0])
        start = self.position.next_offset
        records = [
            record_of(Message(topic="topic", offset=start + number, value=event.encode().encode()), self.position)
            for number, event in enumerate(events)
        ]
        await write_batch(self.engine, Target("tests", "topic"), records)
        self.position.next_offset += len(records)
