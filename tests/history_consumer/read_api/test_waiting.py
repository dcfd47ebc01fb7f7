"""Waiting for versions: one query for all requests that wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.events.models import AnyEvent
from common.tables.roles import Role
from history_consumer.read_api import page_queries
from history_consumer.read_api.page_queries import WantedVersion
from history_consumer.read_api.waiting import VersionPoller
from support.history_events import History, Wallet
from support.roles import Roles

Eventually = Callable[..., Awaitable[Any]]
Looks = list[Collection[WantedVersion]]


@pytest.fixture
async def reader_engine(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as a history API does."""
    async with roles.engine(database_url, Role.READER) as engine:
        yield engine


@pytest.fixture
async def poller(reader_engine: AsyncEngine) -> AsyncIterator[VersionPoller]:
    poller = VersionPoller(reader_engine.execution_options(isolation_level="AUTOCOMMIT"), 0.02)
    yield poller
    await poller.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The wanted versions of each query."""
    looks: Looks = []
    look = page_queries.reached_versions

    async def noted(connection: AsyncConnection, wanted: Collection[WantedVersion]) -> set[WantedVersion]:
        looks.append(wanted)
        return await look(connection, wanted)

    monkeypatch.setattr(page_queries, "reached_versions", noted)
    return looks


async def test_all_requests_that_wait_share_one_query_and_those_that_leave_are_left_out(
    poller: VersionPoller, looks: Looks, history: History, eventually: Eventually
) -> None:
    async def are_looked_for(count: int) -> bool:
        return bool(looks) and len(looks[-1]) == count

    wallets = [Wallet(f"user-{number}") for number in range(20)]
    await history.add(*(wallet.created() for wallet in wallets))
    started = time.monotonic()
    # Two requests for each wallet, and one for an unknown wallet.
    waiting = [asyncio.create_task(poller.wait(WantedVersion(wallet.id, None, 2), 600)) for wallet in wallets * 2]
    leaving = asyncio.create_task(poller.wait(WantedVersion(uuid4(), None, 1), 600))
    await eventually(partial(are_looked_for, 21))
    leaving.cancel()
    await eventually(partial(are_looked_for, 20))
    assert not [task for task in waiting if task.done()]
    await history.add(*(wallet.funded() for wallet in wallets))
    async with asyncio.timeout(60):
        await asyncio.gather(*waiting)
    assert len(looks) <= (time.monotonic() - started) / 0.02 + 1
    assert all(looks), "a query for no request"


async def test_time_that_is_up_ends_the_wait(poller: VersionPoller, looks: Looks) -> None:
    await poller.wait(WantedVersion(uuid4(), None, 1), 0.05)
    await poller.wait(WantedVersion(uuid4(), None, 1), 0)
    assert all(looks)


@pytest.mark.parametrize("error", [OSError("away"), asyncio.CancelledError()], ids=repr)
async def test_a_query_that_fails_ends_each_wait_and_later_requests_are_polled_for_again(
    poller: VersionPoller, history: History, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def fail(*_: object) -> set[WantedVersion]:
        raise error

    ada = Wallet("ada")
    with monkeypatch.context() as patched:
        patched.setattr(page_queries, "reached_versions", fail)
        async with asyncio.timeout(60):
            await asyncio.gather(*(poller.wait(WantedVersion(ada.id, None, 1), 600) for _ in range(20)))
    waiting = asyncio.create_task(poller.wait(WantedVersion(ada.id, None, 1), 600))
    await history.add(ada.created())
    async with asyncio.timeout(60):
        await waiting


async def test_a_version_is_reached_when_none_up_to_it_is_missing_and_its_caller_may_read_it(
    history: History, reader_engine: AsyncEngine
) -> None:
    ada, whole, unknown = Wallet("ada"), Wallet("bob"), uuid4()
    done: list[AnyEvent] = [ada.created(), *(ada.funded() for _ in range(6))]
    await history.add(*(done[place] for place in (0, 1, 3, 4, 6)), whole.created(), whole.funded())
    wanted = {
        WantedVersion(wallet_id, user_id, version)
        for wallet_id in (ada.id, whole.id, unknown)
        for user_id in (None, "ada", "eve")
        for version in range(1, 9)
    }
    async with reader_engine.connect() as connection:
        reached = await page_queries.reached_versions(connection, wanted)
    assert reached == {
        *(WantedVersion(ada.id, user_id, version) for user_id in (None, "ada") for version in (1, 2)),
        *(WantedVersion(whole.id, None, version) for version in (1, 2)),
    }
