"""Consumers on the test's own database and topic."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.tables.roles import Role
from common.worker import Health
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.read_api.app import create_app
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from support.applications import client_of
from support.history_events import History, Topic
from support.history_pipeline import HistoryPipeline
from support.roles import Roles

NewConsumer = Callable[..., HistoryConsumer]


@pytest.fixture
def consumer_settings(
    database_url: str, kafka_bootstrap_servers: str, topic: str, session_timeout_seconds: float, roles: Roles
) -> ConsumerSettings:
    return ConsumerSettings(
        database_url=roles.url(database_url, Role.CONSUMER),
        kafka_bootstrap_servers=kafka_bootstrap_servers,
        kafka_topic=topic,
        consumer_group=f"history-{uuid4().hex}",
        consumer_poll_seconds=0.02,
        consumer_session_timeout_seconds=session_timeout_seconds,
    )


@pytest.fixture
async def consumer_engine(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as a consumer does."""
    async with roles.engine(database_url, Role.CONSUMER) as engine:
        yield engine


@pytest.fixture
async def new_consumer(consumer_settings: ConsumerSettings, consumer_engine: AsyncEngine) -> AsyncIterator[NewConsumer]:
    """Make consumers; keyword arguments change their settings. They leave the group when the test ends."""
    made: list[HistoryConsumer] = []

    def make(**changes: object) -> HistoryConsumer:
        settings = consumer_settings.model_copy(update=changes)
        made.append(HistoryConsumer(settings, consumer_engine, Health()))
        return made[-1]

    yield make
    await asyncio.gather(*(consumer.close() for consumer in made))


@pytest.fixture
def events(kafka_bootstrap_servers: str, topic: str) -> Topic:
    """The topic to produce to."""
    return Topic(kafka_bootstrap_servers, topic)


@pytest.fixture
def rows(engine: AsyncEngine) -> Callable[..., Any]:
    """Run a statement as the superuser, and return its rows as tuples."""

    async def select(statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement), parameters)
            return [tuple(row) for row in result.all()] if result.returns_rows else []

    return select


@pytest.fixture
def pipeline(
    events: Topic,
    new_consumer: NewConsumer,
    consumer_engine: AsyncEngine,
    operator: AsyncEngine,
    rows: Callable[..., Any],
) -> HistoryPipeline:
    """The test's topic, consumers and history."""
    return HistoryPipeline(events, new_consumer, consumer_engine, operator, rows)


@pytest.fixture
def history(consumer_engine: AsyncEngine) -> History:
    return History(consumer_engine)


OpenApi = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def open_api(roles: Roles) -> OpenApi:
    """Start a history API on a database, as its role, with settings of its own, and return its client."""

    @asynccontextmanager
    async def open_(database_url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = {"auth": "none", "history_min_version_wait_seconds": 1, **settings}
        url = roles.url(database_url, Role.READER)
        app = create_app(HistoryApiSettings(database_url=url, **settings))
        async with client_of(app, "http://history", raise_app_exceptions=False) as client:
            yield client

    return open_


@pytest.fixture
async def api(open_api: OpenApi, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the history API on the test's database."""
    async with open_api(database_url) as client:
        yield client
