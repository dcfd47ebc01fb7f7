"""Fixtures for all tests: real servers, and a fresh database and a fresh topic for each test.

The tests use the servers of `TEST_DATABASE_URL` and `TEST_KAFKA_BOOTSTRAP_SERVERS` where these are set. With
`TEST_BACKEND=containers` they start containers, otherwise PostgreSQL and Kafka of the local stack.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import structlog
from confluent_kafka.admin import AdminClient
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.tables.roles import Role
from support.api_keys import add_key
from support.brokers_with_acls import BrokerWithAcls, broker_with_acls
from support.databases import Databases, migrate_all, patient_engine, run_sql, with_database
from support.outboxes import Outbox
from support.ports import free_port
from support.proxy import HOST, Proxy
from support.roles import ROLES, Roles
from support.topics import fresh_topic
from walletctl.stack.environment import SETTINGS

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
settings.load_profile("default")


def _configures(name: str) -> bool:
    """Whether a variable, in capitals, configures the processes under test, or how they reach their servers."""
    return (
        name.removesuffix("_FILE") in SETTINGS
        or name in SETTINGS
        or name == "PROMETHEUS_MULTIPROC_DIR"
        or name.startswith(("PG", "FAKETIME"))
    )


def pytest_configure(config: pytest.Config) -> None:
    """Remove from the environment every variable that would configure the processes under test."""
    del config
    for name in [name for name in os.environ if _configures(name.upper())]:
        del os.environ[name]
    # The servers are on this machine: clients reach them without the proxy that downloads may need.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"127.0.0.1,localhost,{os.environ.get('no_proxy', '')}"
    # These brokers run for seconds: optimising their code would take more than half of their processor time.
    os.environ.setdefault("WALLET_STACK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(autouse=True)
def logs_as_in_a_new_process() -> None:
    """Forget the level, the form and the filters of log lines that an application of an earlier test configured."""
    structlog.reset_defaults()
    logging.getLogger().setLevel(logging.WARNING)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.filters.clear()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The maintenance database of a PostgreSQL server."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
    elif os.environ.get("TEST_BACKEND") == "containers":
        from support.containers import postgres_container

        with postgres_container(tmp_path_factory.mktemp("postgres")) as url:
            yield url
    else:
        from tools.servers import postgres_server

        # The data are deleted after the tests, so they need not survive a power failure.
        with postgres_server(tmp_path_factory.mktemp("postgres"), settings={"fsync": "off"}) as url:
            yield url


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka broker."""
    if servers := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
    elif os.environ.get("TEST_BACKEND") == "containers":
        from support.containers import kafka_container

        with kafka_container(tmp_path_factory.mktemp("kafka")) as servers:
            yield servers
    else:
        from tools.servers import kafka_server

        with kafka_server(tmp_path_factory.mktemp("kafka")) as servers:
            yield servers


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerWithAcls]:
    """A broker with logins, TLS and access control lists. Tests use topics, groups and users of their own."""
    with broker_with_acls(tmp_path_factory.mktemp("guarded-kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def session_timeout_seconds() -> float:
    """Seconds that a killed consumer keeps its partitions: the least that the broker allows by its configuration."""
    return 6.0 if os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS") else 2.0


@pytest.fixture(scope="session")
def roles(postgres_url: str) -> Iterator[Roles]:
    """The roles of the processes, each with a login."""
    asyncio.run(ROLES.create(postgres_url))
    yield ROLES
    asyncio.run(ROLES.drop(postgres_url))


@pytest.fixture(scope="session")
def template(postgres_url: str, roles: Roles) -> Iterator[str]:
    """The name of a migrated database to clone.

    The roles have their privileges in it, and it accepts the API key of the tests' clients.
    """
    name = f"template_{uuid4().hex}"
    asyncio.run(run_sql(postgres_url, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrate_all(with_database(postgres_url, name)))
    asyncio.run(roles.grant(with_database(postgres_url, name)))
    asyncio.run(add_key(with_database(postgres_url, name)))
    yield name
    asyncio.run(run_sql(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def databases(postgres_url: str, template: str) -> Iterator[Databases]:
    """Makes the tests' databases."""
    databases = Databases(postgres_url, template)
    yield databases
    databases.close()


@pytest.fixture
def new_database(databases: Databases) -> Iterator[Callable[[str | None], str]]:
    """Make databases, empty or cloned from a template. They are dropped after the test."""
    urls: list[str] = []

    def make(template: str | None) -> str:
        urls.append(databases.make(template))
        return urls[-1]

    yield make
    for url in urls:
        databases.drop(url)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A fresh, migrated database."""
    url = databases.clone()
    yield url
    databases.drop(url)


@pytest.fixture
async def database_link(database_url: str) -> AsyncIterator[Proxy]:
    """A network in front of the fresh database, which the test can slow down, silence or break."""
    async with Proxy(free_port(), make_url(database_url).port or 5432) as link:
        yield link


@pytest.fixture
def linked_database_url(database_url: str, database_link: Proxy) -> str:
    """The URL of the fresh database behind that network."""
    url = make_url(database_url).set(host=HOST, port=database_link.port)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def empty_database_url(new_database: Callable[[str | None], str]) -> str:
    """A fresh database without tables."""
    return new_database(None)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A superuser's engine on the fresh database: a test arranges and checks with it, and acts with a role's."""
    async with patient_engine(database_url) as engine:
        yield engine


@pytest.fixture
def operator_url(database_url: str, roles: Roles) -> str:
    """The URL of the fresh database for an operator."""
    return roles.url(database_url, Role.OPERATOR)


@pytest.fixture
async def operator(operator_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as an operator does."""
    async with patient_engine(operator_url) as engine:
        yield engine


@pytest.fixture
def outbox(engine: AsyncEngine) -> Outbox:
    """The outbox of the fresh database."""
    return Outbox(engine)


@pytest.fixture(scope="session")
def kafka_admin(kafka_bootstrap_servers: str) -> AdminClient:
    """A client to make and delete topics."""
    return admin_client(KafkaConnection(kafka_bootstrap_servers))


@pytest.fixture
def topic(kafka_admin: AdminClient) -> Iterator[str]:
    """A fresh topic with three partitions."""
    with fresh_topic(kafka_admin) as name:
        yield name


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[Any]]:
    """Wait until a condition holds, and return its value. Past the deadline, raise TimeoutError."""

    async def wait(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := await condition()):
                await asyncio.sleep(0.02)
        return found

    return wait
