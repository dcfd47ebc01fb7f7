"""The keys that an API accepts, and how soon it doesn't any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access import key_queries, key_store
from common.access.api_keys import key_text
from common.access.caller import SCOPES, Caller
from common.access.key_acts import create_key, revoke_key, rotate_key
from common.access.key_store import REVOKED_SECONDS_MAX, USE_SECONDS, KeyStore, open_key_store
from common.postgres.engine import create_engine
from common.problems import Problem, Unauthorized, Unavailable
from common.secrets import Secret
from common.tables.roles import Role
from support.proxy import Proxy
from support.roles import Roles

NewKey = Callable[..., Awaitable[tuple[str, str]]]
Sql = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def store(api: AsyncEngine) -> KeyStore:
    """A store that the test reads by hand."""
    return KeyStore(api)


def with_another_secret(key: str) -> str:
    _, environment, key_id, *_ = key.split("_")
    return key_text(environment, key_id, 4711)


async def reading(store: KeyStore, text: str) -> Caller | Problem:
    """Ask for the caller while the store reads as often as it is asked to."""
    asked = asyncio.create_task(store.caller_of(text))
    while not asked.done():
        await asyncio.sleep(0)
        if store._asked.is_set():
            await store.read()
    return asked.result()


def statements(engine: AsyncEngine) -> list[str]:
    """Return the list to which the engine's statements are added from now on."""
    found: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: found.append(arguments[2]))
    return found


async def test_a_key_has_its_caller(store: KeyStore, new_key: NewKey) -> None:
    key_id, key = await new_key(user_id="ada", expires_in_days=1)
    await store.read()
    assert await store.caller_of(key) == Caller(f"key:{key_id}", "ada", frozenset(SCOPES))


async def test_a_new_key_works_at_once(store: KeyStore, new_key: NewKey) -> None:
    await store.read()
    _, key = await new_key()
    assert isinstance(await reading(store, key), Caller)


async def test_every_other_key_is_refused_in_the_same_words(
    store: KeyStore, operator: AsyncEngine, new_key: NewKey, sql: Sql
) -> None:
    _, valid = await new_key()
    _, expired = await new_key(expires_in_days=1)
    await sql("UPDATE wallet.api_keys SET expires_at = now() WHERE expires_at IS NOT NULL")
    revoked_id, revoked = await new_key()
    await revoke_key(operator, revoked_id, "for a test")
    await store.read()
    unknown = key_text("test", "0" * 12, 4711)
    refused = [await reading(store, key) for key in (unknown, expired, revoked, with_another_secret(valid))]
    assert all(isinstance(problem, Unauthorized) for problem in refused)
    assert (
        len({(problem.body("/"), str(problem.headers())) for problem in refused if isinstance(problem, Problem)}) == 1
    )
    assert [problem.reason for problem in refused if isinstance(problem, Unauthorized)] == [
        "unknown-key",
        "unknown-key",
        "unknown-key",
        "wrong-secret",
    ]


async def test_a_wrong_checksum_costs_no_reading(store: KeyStore, new_key: NewKey) -> None:
    _, key = await new_key()
    await store.read()
    refused = await store.caller_of(key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert isinstance(refused, Unauthorized)
    assert not store._asked.is_set()


async def test_a_key_expires_by_the_clock_without_another_reading(
    api: AsyncEngine, new_key: NewKey, clock: Any
) -> None:
    store = KeyStore(api, clock)
    _, key = await new_key(expires_in_days=30 / 24 / 3600)
    await store.read()
    assert isinstance(await store.caller_of(key), Caller)
    clock.seconds += 30
    assert isinstance(await reading(store, key), Unauthorized)


async def test_a_revoked_key_is_refused_after_the_next_reading(
    store: KeyStore, operator: AsyncEngine, new_key: NewKey
) -> None:
    key_id, key = await new_key()
    await store.read()
    assert isinstance(await store.caller_of(key), Caller)
    await revoke_key(operator, key_id, None)
    await store.read()
    assert isinstance(await reading(store, key), Unauthorized)


async def test_no_key_is_accepted_for_longer_than_five_seconds_after_the_last_reading(
    api: AsyncEngine, new_key: NewKey, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(api, clock)
    _, key = await new_key()
    await store.read()

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError("the database is away")

    monkeypatch.setattr(key_queries, "probe", refuse)
    clock.seconds += REVOKED_SECONDS_MAX
    await store.read()
    assert isinstance(await store.caller_of(key), Caller)
    assert store.state() == "ok"
    clock.seconds += 0.001
    refused = await store.caller_of(key)
    assert isinstance(refused, Unavailable)
    assert store.state() == "can't be read: the database is away"
    monkeypatch.undo()
    await store.read()
    assert isinstance(await store.caller_of(key), Caller)


async def test_a_database_that_does_not_answer_is_named_as_the_reason(
    api: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(key_queries, "probe", hang)
    monkeypatch.setattr(key_store, "_READ_TIMEOUT_SECONDS", 0.01)
    store = KeyStore(api)
    await store.read()
    assert store.state() == "can't be read: no answer in time"


async def test_a_process_that_was_suspended_reads_the_keys_before_it_accepts_one(
    api: AsyncEngine, operator: AsyncEngine, new_key: NewKey, clock: Any
) -> None:
    store = KeyStore(api, clock)
    key_id, key = await new_key()
    await store.read()
    await revoke_key(operator, key_id, None)
    clock.seconds += 3600
    assert isinstance(await reading(store, key), Unauthorized)


async def test_while_the_keys_can_not_be_read_an_unknown_key_is_not_called_invalid(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.read()

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError("the database is away")

    monkeypatch.setattr(key_queries, "probe", refuse)
    unknown = key_text("test", "0" * 12, 4711)
    assert isinstance(await reading(store, unknown), Unavailable)
    # Now it is known that the database is away, and the request need not wait.
    assert isinstance(await store.caller_of(unknown), Unavailable)


async def test_before_the_first_reading_no_key_is_accepted(store: KeyStore) -> None:
    assert store.state() == "not read yet"


async def test_a_rotated_key_and_its_successor_are_one_caller_until_the_overlap_ends(
    api: AsyncEngine, operator: AsyncEngine, new_key: NewKey, clock: Any
) -> None:
    store = KeyStore(api, clock)
    key_id, key = await new_key(user_id="ada")
    successor, _ = await rotate_key(operator, "test", key_id, overlap_hours=30 / 3600)
    third, _ = await rotate_key(operator, "test", successor.id, overlap_hours=2)
    await store.read()
    callers = [await store.caller_of(text) for text in (key, successor.text, third.text)]
    assert callers == [Caller(f"key:{key_id}", "ada", frozenset(SCOPES))] * 3
    clock.seconds += 31
    await store.read()
    assert isinstance(await reading(store, key), Unauthorized)
    assert isinstance(await store.caller_of(successor.text), Caller)


async def test_unknown_keys_share_one_reading_and_only_a_bounded_number_of_requests_waits(store: KeyStore) -> None:
    await store.read()
    tasks = [asyncio.create_task(store.caller_of(key_text("test", "0" * 12, secret))) for secret in range(100)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert store._waiting == 32
    assert sum(task.done() for task in tasks) == 68
    await store.read()
    assert all(isinstance(problem, Unauthorized) for problem in await asyncio.gather(*tasks))
    assert store._waiting == 0


async def test_a_wrong_secret_waits_for_the_same_reading_as_an_unknown_key(store: KeyStore, new_key: NewKey) -> None:
    _, valid = await new_key()
    await store.read()
    keys = (with_another_secret(valid), key_text("test", "0" * 12, 4711))
    tasks = [asyncio.create_task(store.caller_of(key)) for key in keys]
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    await store.read()
    assert all(isinstance(problem, Unauthorized) for problem in await asyncio.gather(*tasks))


async def test_keys_that_nobody_changed_are_not_read_again(
    api: AsyncEngine, new_key: NewKey, clock: Any, sql: Sql
) -> None:
    store = KeyStore(api, clock)
    _, key = await new_key()
    await store.read()
    run = statements(api)
    for _ in range(3):
        await store.read()
    assert len(run) == 3
    # A change by hand, in SQL, is noticed within a minute.
    await sql("UPDATE wallet.api_keys SET revoked_at = now()")
    clock.seconds += 60
    await store.read()
    assert isinstance(await reading(store, key), Unauthorized)


async def test_the_time_of_use_is_written_by_one_statement_for_all_keys_and_requests(
    api: AsyncEngine, new_key: NewKey, sql: Sql
) -> None:
    store = KeyStore(api)
    keys = [(await new_key())[1] for _ in range(3)]
    _, unused = await new_key()
    await store.read()
    run = statements(api)
    for _ in range(50):
        for key in keys:
            await store.caller_of(key)
    assert run == []
    await store.write_use()
    assert len(run) == 1
    assert await sql("SELECT count(*) FROM wallet.api_keys WHERE last_used_at > now() - interval '1 minute'") == 3
    await store.write_use()
    assert len(run) == 1
    assert isinstance(await store.caller_of(unused), Caller)


@pytest.mark.parametrize("role", [Role.API, Role.READER])
async def test_the_time_of_use_is_written_while_an_api_runs_as_its_role(
    database_url: str,
    roles: Roles,
    role: Role,
    new_key: NewKey,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    monkeypatch.setattr(key_store, "USE_SECONDS", USE_SECONDS / 1000)
    key_id, key = await new_key()
    async with open_key_store(Secret(roles.url(database_url, role)), 5, on_standby=False) as store:
        assert isinstance(await store.caller_of(key), Caller)

        async def written() -> Any:
            return await sql("SELECT last_used_at FROM wallet.api_keys WHERE id = :id", id=key_id)

        await eventually(written)


async def test_a_session_that_may_not_write_reads_the_keys_all_the_same(
    database_url: str, roles: Roles, new_key: NewKey, sql: Sql
) -> None:
    key_id, key = await new_key()
    reader = create_engine(roles.url(database_url, Role.API), "tests", writes=False)
    store = KeyStore(reader)
    await store.read()
    assert isinstance(await store.caller_of(key), Caller)
    run = statements(reader)
    await store.write_use()
    assert run == []
    assert await sql("SELECT last_used_at FROM wallet.api_keys WHERE id = :id", id=key_id) is None
    await reader.dispose()


async def test_a_revocation_is_honoured_within_five_seconds(
    database_url: str, roles: Roles, operator: AsyncEngine, new_key: NewKey, eventually: Eventually
) -> None:
    key_id, key = await new_key()
    async with open_key_store(Secret(roles.url(database_url, Role.API)), 5, on_standby=False) as store:
        assert isinstance(await store.caller_of(key), Caller)
        await revoke_key(operator, key_id, None)

        async def refused() -> bool:
            return isinstance(await store.caller_of(key), Unauthorized)

        await eventually(refused)


async def test_behind_a_silent_network_an_unknown_key_is_refused_as_unavailable_until_it_heals(
    linked_database_url: str, database_link: Proxy, roles: Roles, operator: AsyncEngine, eventually: Eventually
) -> None:
    async with open_key_store(Secret(roles.url(linked_database_url, Role.API)), 1, on_standby=False) as store:
        database_link.silence()
        key = await create_key(operator, "test", "made meanwhile", SCOPES)

        async def outcome_is(kind: type) -> bool:
            return isinstance(await store.caller_of(key.text), kind)

        await eventually(lambda: outcome_is(Unavailable))
        database_link.heal()
        await eventually(lambda: outcome_is(Caller))
        assert store.state() == "ok"
