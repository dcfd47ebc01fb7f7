"""The suite's own parts: the proxy, the schedule and the checkers."""

import asyncio
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from faults import clock_faults
from faults.answer_checkers import answer_violations
from faults.checkers import balance_violations, fallen
from faults.driver import Driver
from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS
from faults.requests import Operation
from faults.schedule import draw_schedule
from support.ports import free_port
from support.proxy import HOST, Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy in front of an echo server."""

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
    """Return the echo, or nothing if it does not arrive in time."""
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


async def test_a_server_whose_answers_are_slow_hears_at_once_and_is_heard_late(proxy: Proxy) -> None:
    proxy.answer_delay_seconds = 0.2
    assert await say(proxy, b"hello", 0.15) == b""
    assert await say(proxy, b"hello", 5) == b"hello"
    proxy.heal()
    assert proxy.answer_delay_seconds == 0


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


@pytest.mark.parametrize("steps", range(8))
async def test_a_connection_that_comes_while_the_proxy_ends_is_closed(steps: int) -> None:
    """The event loop takes some steps from the accept to the proxy's own task."""
    async with Proxy(free_port(), free_port()) as proxy:
        client = socket.create_connection((HOST, proxy.port))
        client.setblocking(False)
        for _ in range(steps):
            await asyncio.sleep(0)
    with client, suppress(ConnectionError):
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 5) == b""


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
    assert balance_violations(sound, 400, 500) == []
    for change, at_least, at_most in (
        ({"balances": 501}, 400, 600),
        ({"entries": 499}, 400, 600),
        ({"lowest": -2001}, 400, 600),
        ({"sessions": 1000}, 400, 600),
        ({"deadlocks": 1}, 400, 600),
        ({}, 501, 600),
        ({}, 400, 499),
    ):
        assert len(balance_violations({**sound, **change}, at_least, at_most)) == 1


@pytest.fixture
async def answering() -> AsyncIterator[Callable[[bytes], Driver]]:
    """Returns a driver of an API that gives every request this head."""
    head = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            asked = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", asked, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(b"HTTP/1.1 " + head + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    port = free_port()
    server = await asyncio.start_server(answer, HOST, port)

    def make(line: bytes) -> Driver:
        nonlocal head
        head = line
        return Driver(f"http://{HOST}:{port}", seed=1, wallets=["one", "two"])

    yield make
    server.close()


async def ask_and_end(driver: Driver) -> list[str]:
    """Send three requests and let the run end; return their outcomes."""
    asked = await driver.crowd(random.Random(1), 3)
    stop = asyncio.Event()
    stop.set()
    await driver.run(stop)
    return [operation.outcome for operation in asked]


async def test_an_answer_that_no_request_may_get_is_noted_once_and_not_asked_for_again(
    answering: Callable[[bytes], Driver],
) -> None:
    driver = answering(b"404 Not Found")
    assert await asyncio.wait_for(ask_and_end(driver), 20) == ["wrong"] * 3
    assert len(driver.violations) == driver.answers["404"] == 3
    assert [answer_violations(operation, None, None) for operation in driver.operations] == [[]] * 3


async def test_an_outcome_that_stays_unknown_ends_the_run_and_is_found_by_the_checks(
    answering: Callable[[bytes], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faults.driver._SETTLE_SECONDS_MAX", 0.3)
    driver = answering(b"503 Service Unavailable")
    assert await asyncio.wait_for(ask_and_end(driver), 20) == ["unknown"] * 3
    assert [len(answer_violations(operation, None, None)) for operation in driver.operations] == [1] * 3


def test_an_answer_is_compared_with_its_effect_and_with_what_its_key_has() -> None:
    done = Operation("fund", "/wallets/w/fund", {}, "k", outcome="ok", status=200, reply=b'{"transaction_id":"t"}')
    refused = Operation("fund", "/wallets/w/fund", {}, "k", outcome="refused", status=422, reply=b"{}")
    effect = {"times": 1, "id": "t"}
    stored = {"reply_status": 200, "reply_body": done.reply}
    assert answer_violations(done, effect, stored) == []
    assert answer_violations(refused, None, {"reply_status": 422, "reply_body": b"{}"}) == []
    for operation, effects, key, count in (
        (done, None, stored, 1),
        (done, {"times": 2, "id": "t"}, stored, 1),
        (done, {"times": 1, "id": "u"}, stored, 1),
        (done, effect, None, 1),
        (done, effect, {"reply_status": 200, "reply_body": b"{}"}, 1),
        (done, None, None, 2),
        (refused, effect, {"reply_status": 422, "reply_body": b"{}"}, 1),
        (refused, None, None, 1),
    ):
        assert len(answer_violations(operation, effects, key)) == count


def test_a_position_that_falls_or_vanishes_is_noticed_and_another_topic_starts_anew() -> None:
    before = {(0, "topic"): 7, (1, "topic"): 7}
    assert fallen(before, {(0, "topic"): 7, (1, "topic"): 8, (0, "other"): 0}) == []
    assert len(fallen(before, {(0, "topic"): 6})) == 2


@pytest.mark.skipif(clock_faults.library() is None, reason="libfaketime's wheel has no library for this machine")
def test_a_process_sees_its_clock_move_while_it_runs_and_time_pass_as_before(tmp_path: Path) -> None:
    library, clock = clock_faults.library(), tmp_path / "clock"
    assert library is not None
    clock.write_text("+0")
    code = """if True:
        import pathlib, sys, time
        wall, passed, deadline = time.time(), time.monotonic(), time.monotonic() + 10
        pathlib.Path(sys.argv[1]).write_text("-3600")
        while time.time() > wall and time.monotonic() < deadline:
            time.sleep(0.01)
        print(round(time.time() - wall), round(time.monotonic() - passed))
    """
    environment = {**os.environ, **clock_faults.environment(library, clock)}
    done = subprocess.run([sys.executable, "-c", code, clock], env=environment, stdout=subprocess.PIPE, check=True)
    moved_seconds, passed_seconds = map(int, done.stdout.split())
    assert -3605 < moved_seconds < -3590
    assert 0 <= passed_seconds < 10
