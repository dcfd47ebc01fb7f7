"""A pipeline that ran once for all tests: each test gets a copy of its database, and shares its topic."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS
from common.kafka.topics import ensure_topic
from common.postgres.engine import create_engine
from common.secrets import Secret
from common.settings import PipelineSettings
from common.tables.roles import Role
from common.worker import Health
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.settings import ConsumerSettings
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.settings import RelaySettings
from support.databases import database_of, with_database
from support.roles import ROLES
from wallet_api.commands import CreateWallet
from wallet_api.group_commit.transactions import execute
from wallet_api.operation_objects import object_fields
from wallet_api.operations.capture_hold import CaptureHold
from wallet_api.operations.freeze import Freeze
from wallet_api.operations.fund import Fund
from wallet_api.operations.operation import Operation
from wallet_api.operations.place_hold import PlaceHold
from wallet_api.operations.reverse import Reverse, ReverseBody
from wallet_api.operations.set_limits import SetLimits, VelocityBody
from wallet_api.operations.split import Split, SplitLeg
from wallet_api.operations.transfer import Transfer
from wallet_api.operations.unfreeze import Unfreeze
from wallet_api.operations.void_hold import VoidHold
from wallet_api.use_cases.use_cases import create_wallets, run_operations

Wallets = dict[str, UUID]
APPLIED = text("SELECT coalesce(sum(event_count), 0) FROM history.wallet_progress")
CURRENCIES = {"hot": "EUR", "cold": "EUR", "yen": "JPY", "dinar": "BHD", "empty": "EUR"}


def api_engine(url: Secret | str) -> AbstractAsyncContextManager[AsyncEngine]:
    """Lend an engine that logs in as the wallet API does."""
    return ROLES.engine(url, Role.API)


async def new_wallets(engine: AsyncEngine, currencies: Mapping[str, str] = CURRENCIES) -> Wallets:
    """Create the wallets that `move_money` needs, or others; return their ids by external id."""
    commands = [
        CreateWallet(
            path="/wallets", claim=None, traceparent=None, metadata={}, user_id="ada", currency=code, external_id=name
        )
        for name, code in currencies.items()
    ]
    replies = await execute(engine, create_wallets, commands)
    return dict(zip(currencies, (UUID(orjson.loads(reply.body)["id"]) for reply in replies), strict=True))


def _fund(wallet_id: UUID, amount: str) -> Fund:
    return Fund(
        caller=ANONYMOUS,
        path="/",
        claim=None,
        traceparent=None,
        # A backslash and text that looks like an escaped NUL, and JSON that must be escaped.
        metadata={"note": 'a "quoted" \\u0000 €'},
        wallet_id=wallet_id,
        amount=amount,
        currency=None,
        reference=None,
        if_match=None,
    )


def _transfer(wallet_id: UUID, to_wallet_id: UUID, amount: str) -> Transfer:
    return Transfer(
        caller=ANONYMOUS,
        path="/",
        claim=None,
        traceparent=None,
        metadata={},
        wallet_id=wallet_id,
        amount=amount,
        currency=None,
        reference="rent",
        if_match=None,
        to_wallet_id=to_wallet_id,
    )


def _split(wallet_id: UUID, legs: dict[UUID, str], amount: str) -> Split:
    return Split(
        caller=ANONYMOUS,
        path="/",
        claim=None,
        traceparent=None,
        metadata={},
        wallet_id=wallet_id,
        legs=[SplitLeg.model_validate({"to_wallet_id": str(id_), "amount": part}) for id_, part in legs.items()],
        amount=amount,
        currency=None,
        reference="shares",
        external_id="payment 17",
        if_match=None,
    )


async def move_money(engine: AsyncEngine, wallets: Wallets, rounds: int) -> None:
    """Fund wallets and transfer both ways, in so many rounds."""
    for number in range(1, rounds + 1):
        await execute(engine, run_operations, [_fund(wallets["hot"], f"{number}.50"), _fund(wallets["cold"], "7")])
        await execute(engine, run_operations, [_fund(wallets["yen"], "500"), _fund(wallets["dinar"], "0.005")])
        await execute(engine, run_operations, [_transfer(wallets["hot"], wallets["cold"], "0.75")])
        await execute(engine, run_operations, [_transfer(wallets["cold"], wallets["hot"], "0.01")])


async def hold_money(engine: AsyncEngine, wallets: Wallets) -> None:
    """Place two holds on the hot wallet for the cold one; capture a part of the first, and void the second."""
    command: dict[str, Any] = {"caller": ANONYMOUS, "path": "/", "claim": None, "traceparent": None, "metadata": {}}
    command |= {"wallet_id": wallets["hot"], "to_wallet_id": wallets["cold"], "reference": None, "if_match": None}
    place = PlaceHold(**command, amount="1.50", currency=None, expires_in=3600, capture_max=None)
    held = [orjson.loads(reply.body)["hold"]["id"] for reply in await execute(engine, run_operations, [place] * 2)]
    capture = CaptureHold(**command, hold_id=UUID(held[0]), amount="0.25", final=False)
    await execute(engine, run_operations, [capture, VoidHold(**command, hold_id=UUID(held[1]), reason="no show")])


async def split_money(engine: AsyncEngine, wallets: Wallets) -> UUID:
    """Let the hot wallet pay 0.50: 0.20 to a new wallet, and the rest to the cold one. Return the transaction."""
    warm = (await new_wallets(engine, {"warm": "EUR"}))["warm"]
    return await _made(engine, _split(wallets["hot"], {warm: "0.20", wallets["cold"]: "rest"}, "0.50"))


async def _made(engine: AsyncEngine, command: Operation) -> UUID:
    """Run one command, and return its transaction."""
    (reply,) = await execute(engine, run_operations, [command])
    return UUID(orjson.loads(reply.body)["transaction_id"])


async def reverse_money(engine: AsyncEngine, wallets: Wallets, split: UUID) -> None:
    """Reverse the split, 0.25 of a transfer of 0.75, and a fund."""
    transfer = await _made(engine, _transfer(wallets["hot"], wallets["cold"], "0.75"))
    fund = await _made(engine, _fund(wallets["cold"], "7"))
    for transaction_id, amount in ((split, None), (transfer, "0.25"), (fund, None)):
        await _made(engine, await reversal_of(engine, transaction_id, amount))


async def reversal_of(engine: AsyncEngine, transaction_id: UUID, amount: str | None) -> Reverse:
    """Return a command that reverses so much of the transaction."""
    body = ReverseBody.model_validate({"amount": amount, "reason": "a test"})
    fields = await object_fields(engine, Reverse, transaction_id, body, ANONYMOUS)
    return Reverse(**dict(body), **fields, path="/", caller=ANONYMOUS)


async def change_statuses(engine: AsyncEngine, wallet_id: UUID) -> None:
    """Freeze and unfreeze a wallet, and leave it so that it refuses money out."""
    fields: dict[str, Any] = {
        "caller": ANONYMOUS,
        "path": "/",
        "claim": None,
        "traceparent": None,
        "metadata": {},
        "wallet_id": wallet_id,
        "reason": "a test",
        "reference": "ticket 12",
        "if_match": None,
    }
    commands = [Freeze(**fields, blocks="all"), Unfreeze(**fields), Freeze(**fields, blocks="out")]
    await execute(engine, run_operations, commands)


async def overdraw(engine: AsyncEngine, wallets: Wallets) -> None:
    """Give a new wallet limits, and let it spend more than it has, receive, reserve and release."""
    limited = (await new_wallets(engine, {"limited": "EUR"}))["limited"]
    command: dict[str, Any] = {"caller": ANONYMOUS, "path": "/", "claim": None, "traceparent": None, "metadata": {}}
    command |= {"wallet_id": limited, "reference": None, "if_match": None}
    velocity = [
        VelocityBody(id="out", direction="out", window="day", amount="9"),
        VelocityBody(id="in", direction="in", window="month", types=["FUND"], count=9),
    ]
    limits = SetLimits(**command, overdraft_limit="5", balance_max="100", velocity=velocity, reason="a test")
    await execute(engine, run_operations, [limits, _transfer(limited, wallets["cold"], "3"), _fund(limited, "1")])
    place = PlaceHold(**command, to_wallet_id=None, amount="0.50", currency=None, expires_in=3600, capture_max=None)
    placed = [orjson.loads(reply.body)["hold"]["id"] for reply in await execute(engine, run_operations, [place] * 2)]
    void = VoidHold(**command, to_wallet_id=None, hold_id=UUID(placed[1]), reason=None)
    await execute(engine, run_operations, [void])


@asynccontextmanager
async def opened(url: Secret | str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(url, "tests")
    try:
        yield engine
    finally:
        await engine.dispose()


async def run_relay(settings: PipelineSettings) -> None:
    """Publish every pending event, as the relay's role."""
    relay_settings = RelaySettings(**settings.model_dump())
    async with opened(ROLES.url(settings.database_url, Role.RELAY)) as engine:
        worker = Relay(relay_settings, engine, Publisher(relay_settings), Health(), AdaptiveBatching(0, 2000))
        while await worker.run_once():
            pass


async def run_consumer(settings: PipelineSettings, due: int | None = None) -> None:
    """Apply published events, as the consumer's role, until the history has so many versions, or all versions."""
    url = ROLES.url(settings.history_database_url, Role.CONSUMER)
    async with opened(url) as engine, opened(settings.database_url) as wallets:
        consumer = HistoryConsumer(ConsumerSettings(**settings.model_dump()), engine, Health())
        try:
            async with asyncio.timeout(60), wallets.connect() as outbox, engine.connect() as history:
                due = due or await outbox.scalar(text("SELECT sum(version) FROM wallet.wallets"))
                while due > (await history.scalar(APPLIED)):
                    await history.rollback()
                    await consumer.run_once()
        finally:
            await consumer.close()


async def _run(settings: PipelineSettings) -> None:
    async with opened(ROLES.url(settings.database_url, Role.API)) as engine:
        wallets = await new_wallets(engine)
        await move_money(engine, wallets, rounds=6)
        split = await split_money(engine, wallets)
        await hold_money(engine, wallets)
        await reverse_money(engine, wallets, split)
        await change_statuses(engine, wallets["dinar"])
        await overdraw(engine, wallets)
    await run_relay(settings)
    await run_consumer(settings)


@pytest.fixture(scope="session")
def ran(
    postgres_url: str, template: str, kafka_bootstrap_servers: str, kafka_admin: AdminClient
) -> Iterator[PipelineSettings]:
    """The settings of a pipeline that has run, and has no event left to publish or apply."""
    name, topic = f"ran_{uuid4().hex}", f"wallet_events_{uuid4().hex}"
    asyncio.run(tamper(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    asyncio.run(ensure_topic(kafka_admin, topic, 3, {"retention.ms": "-1"}))
    url = with_database(postgres_url, name)
    settings = PipelineSettings(database_url=url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=topic)
    asyncio.run(_run(settings))
    yield settings
    asyncio.run(tamper(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))
    for future in kafka_admin.delete_topics([topic]).values():
        future.result()


@pytest.fixture
def settings(ran: PipelineSettings, new_database: Callable[[str | None], str]) -> PipelineSettings:
    """The settings of a copy of that pipeline, which the test may corrupt."""
    url = new_database(database_of(ran.database_url))
    return PipelineSettings(**{**ran.model_dump(), "database_url": url, "history_database_url": url})


@pytest.fixture
def apart(settings: PipelineSettings, new_database: Callable[[str | None], str]) -> PipelineSettings:
    """The settings of a copy whose history is in a database of its own."""
    other = new_database(database_of(settings.database_url))
    asyncio.run(tamper(settings.database_url, "DROP SCHEMA history CASCADE"))
    asyncio.run(tamper(other, "DROP SCHEMA wallet CASCADE"))
    return settings.model_copy(update={"history_database_url": Secret(other)})


@pytest.fixture
def fresh(database_url: str, kafka_bootstrap_servers: str, topic: str) -> PipelineSettings:
    """The settings of a pipeline that has not run yet, with a topic of its own."""
    return PipelineSettings(
        database_url=database_url, kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=topic
    )


async def tamper(url: Secret | str, *statements: str) -> None:
    """Run SQL on a database in spite of its triggers, as the superuser of the URL."""
    async with opened(url) as engine, engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        # As replication does: triggers and foreign keys do not fire.
        await autocommit.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            await autocommit.exec_driver_sql(statement)
