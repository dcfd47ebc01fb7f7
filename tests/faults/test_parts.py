"""The suite's own parts: a network that breaks as it is told, a schedule that replays, a checker that notices."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from acceptance_pipeline import free_port
from faults.checkers import bank_violations
from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS, draw_schedule
from faults.proxy import HOST, Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    target = free_port()
    server = await asyncio.start_server(echo, HOST, target)
    async with Proxy(free_port(), target) as proxy:
        yield proxy
    server.close()


async def say(proxy: Proxy, words: bytes, seconds: float = 0.3) -> bytes:
    """Return what comes back, nothing if nothing comes in time."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(words)
    try:
        return await asyncio.wait_for(reader.readexactly(len(words)), seconds)
    except TimeoutError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_sound_network_passes_everything_on(proxy: Proxy) -> None:
    assert await say(proxy, b"x" * 100_000, 5) == b"x" * 100_000


async def test_a_slow_network_delays(proxy: Proxy) -> None:
    proxy.delay_seconds = 0.2
    assert await say(proxy, b"hello", 0.3) == b""
    assert await say(proxy, b"hello", 5) == b"hello"


async def test_a_silent_network_keeps_what_it_was_given_until_it_heals(proxy: Proxy) -> None:
    proxy.silence()
    asked = asyncio.create_task(say(proxy, b"hello", 5))
    assert await say(proxy, b"hello") == b""
    proxy.heal()
    assert await asked == b"hello"


async def test_a_forgotten_connection_stays_silent_and_new_ones_do_not(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    proxy.silence()
    proxy.heal(forget=True)
    writer.write(b"hello")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(5), 0.3)
    assert await say(proxy, b"hello", 5) == b"hello"
    writer.transport.abort()


async def test_a_connection_is_cut_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.cut_after_bytes = 10
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"12345678901234")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(14), 5)
    writer.transport.abort()


def test_the_same_seed_gives_the_same_schedule_and_every_fault_comes() -> None:
    for faults in (PROCESS_FAULTS, SERVER_FAULTS):
        schedule = draw_schedule(7, faults, 40)
        assert schedule == draw_schedule(7, faults, 40)
        assert schedule != draw_schedule(8, faults, 40)
        assert {fault.name for fault in schedule[: len(faults)]} == set(faults)


def test_money_that_is_made_lost_or_owed_is_noticed() -> None:
    sound = {"balances": 500, "came_in": 500, "entries": 500, "lowest": 0, "sessions": 20, "deadlocks": 0}
    assert bank_violations(sound, 400, 500) == []
    for change, at_least, at_most in (
        ({"balances": 501}, 400, 600),
        ({"entries": 499}, 400, 600),
        ({"lowest": -1}, 400, 600),
        ({"sessions": 1000}, 400, 600),
        ({"deadlocks": 1}, 400, 600),
        ({}, 501, 600),
        ({}, 400, 499),
    ):
        assert len(bank_violations({**sound, **change}, at_least, at_most)) == 1
