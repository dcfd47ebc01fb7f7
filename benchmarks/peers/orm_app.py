"""The usual way: FastAPI and SQLAlchemy's ORM, one transaction for each request, then an awaited produce to Kafka.

It does well what tutorials teach. Its sessions are async, it locks wallets in the order of ids, and funds lock
optimistically. One producer with acks=all sends the events, and the request waits for the delivery report. It promises
less: no idempotency, no balanced ledger, and an event is lost if the process dies after the commit.
"""

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey, Numeric, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError

POOL_SIZE = 10
ATTEMPTS_MAX = 40


class Base(DeclarativeBase):
    """The base of the peer's tables."""

    __table_args__ = {"schema": "orm"}  # noqa: RUF012 - SQLAlchemy's way


class Wallet(Base):
    """A wallet. A write fails if its version has changed since it was read."""

    __tablename__ = "wallets"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    currency: Mapped[str]
    balance: Mapped[Decimal] = mapped_column(Numeric(20, 2))
    version: Mapped[int] = mapped_column()
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way


class Transaction(Base):
    """A movement of a wallet's money."""

    __tablename__ = "transactions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    wallet_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orm.wallets.id"), index=True)
    counterparty_id: Mapped[uuid.UUID | None]
    type: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(Numeric(20, 2))
    balance_after: Mapped[Decimal] = mapped_column(Numeric(20, 2))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FundBody(BaseModel):
    """The body of a fund."""

    amount: Decimal = Field(gt=0, decimal_places=2)


class TransferBody(FundBody):
    """The body of a transfer."""

    to_wallet_id: uuid.UUID


class TransactionOut(BaseModel):
    """The reply."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    wallet_id: uuid.UUID
    counterparty_id: uuid.UUID | None
    type: str
    amount: Decimal
    balance_after: Decimal
    created_at: datetime


class EventProducer:
    """A Kafka producer that can be awaited."""

    def __init__(self, servers: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 1}
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(0.1)

    async def send(self, key: uuid.UUID, value: str) -> None:
        """Produce, and wait for the delivery report."""
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[None] = loop.create_future()

        def settle(error: KafkaError | None) -> None:
            if error is None:
                delivered.set_result(None)
            else:
                delivered.set_exception(KafkaException(error))

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            loop.call_soon_threadsafe(settle, error)

        self._producer.produce(self._topic, value.encode(), str(key), on_delivery=on_delivery)
        await delivered

    def close(self) -> None:
        """Flush and stop."""
        self._producer.flush(10)
        self._stopped.set()
        self._thread.join()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database and the producer, and close them at the end."""
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.state.producer = EventProducer(os.environ["KAFKA_BOOTSTRAP_SERVERS"], os.environ["KAFKA_TOPIC"])
    yield
    app.state.producer.close()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Open one session for each request."""
    async with request.app.state.sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


def event(transaction: Transaction) -> str:
    """Return the event's JSON."""
    return TransactionOut.model_validate(transaction).model_dump_json()


@app.get("/ready")
async def ready() -> dict[str, str]:
    """Return that the app runs."""
    return {"status": "ready"}


@app.post("/wallets/{wallet_id}/transfer", response_model=TransactionOut)
async def transfer(request: Request, wallet_id: uuid.UUID, body: TransferBody, session: Session) -> Any:
    """Move money between locked wallets."""
    async with session.begin():
        locked = await session.scalars(
            select(Wallet).where(Wallet.id.in_([wallet_id, body.to_wallet_id])).order_by(Wallet.id).with_for_update()
        )
        wallets = {wallet.id: wallet for wallet in locked}
        sender, receiver = wallets.get(wallet_id), wallets.get(body.to_wallet_id)
        if sender is None or receiver is None:
            raise HTTPException(404, "no such wallet")
        if sender.balance < body.amount:
            raise HTTPException(422, "insufficient funds")
        sender.balance -= body.amount
        receiver.balance += body.amount
        sent = Transaction(
            wallet_id=sender.id,
            counterparty_id=receiver.id,
            type="TRANSFER_SENT",
            amount=body.amount,
            balance_after=sender.balance,
        )
        received = Transaction(
            wallet_id=receiver.id,
            counterparty_id=sender.id,
            type="TRANSFER_RECEIVED",
            amount=body.amount,
            balance_after=receiver.balance,
        )
        session.add_all([sent, received])
    await request.app.state.producer.send(sender.id, event(sent))
    return sent


@app.post("/wallets/{wallet_id}/fund", response_model=TransactionOut)
async def fund(request: Request, wallet_id: uuid.UUID, body: FundBody, session: Session) -> Any:
    """Add money optimistically: after a lost race, read again."""
    for _ in range(ATTEMPTS_MAX):
        try:
            async with session.begin():
                wallet = await session.get(Wallet, wallet_id)
                if wallet is None:
                    raise HTTPException(404, "no such wallet")
                wallet.balance += body.amount
                funded = Transaction(wallet_id=wallet.id, type="FUND", amount=body.amount, balance_after=wallet.balance)
                session.add(funded)
        except StaleDataError:
            session.expunge_all()
            continue
        await request.app.state.producer.send(wallet_id, event(funded))
        return funded
    raise HTTPException(409, "the wallet changed each time")
