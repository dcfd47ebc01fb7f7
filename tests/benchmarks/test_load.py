import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import orjson
import pytest

from benchmarks.load import wrk
from benchmarks.load.sides import Side, in_turn
from benchmarks.load.wrk import Load, LoadError, MissingGeneratorError
from benchmarks.plan import QUICK

CONNECTIONS = 8
WALLETS = [str(uuid4()) for _ in range(20)]

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@asynccontextmanager
async def server(requests: list[bytes], *, status: str = "200 OK") -> AsyncIterator[str]:
    """Answer every request with the status, and keep what was asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                requests.append(head + await reader.readexactly(length))
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1")
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def send(
    tmp_path: Path, operation: wrk.Operation, *, hot: bool = False, rate: float = 0
) -> tuple[wrk.Answers, list[bytes]]:
    requests: list[bytes] = []
    load = Load(operation, wrk.ids_file(tmp_path, WALLETS), hot, "wk_key")
    async with server(requests) as url:
        answers = await asyncio.to_thread(wrk.send, url, load, CONNECTIONS, 1, rate)
    return answers, requests


def parts(request: bytes) -> tuple[str, str, dict[str, str]]:
    """Return the sending wallet, the idempotency key and the body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    named = dict(line.split(": ", 1) for line in headers)
    return first.split("/")[2], named["Idempotency-Key"], orjson.loads(body)


@needs_wrk
async def test_each_transfer_has_a_key_of_its_own_and_goes_from_any_wallet_to_another(tmp_path: Path) -> None:
    answers, requests = await send(tmp_path, "transfer")

    asked = [parts(request) for request in requests]
    assert 0 < answers.done <= len(asked) <= answers.done + CONNECTIONS
    assert len({key for _, key, _ in asked}) == len(asked)
    assert {sender for sender, _, _ in asked} == set(WALLETS)
    assert all(body["to_wallet_id"] in set(WALLETS) - {sender} for sender, _, body in asked)
    assert all(UUID(key) for _, key, _ in asked)
    assert all(b"\r\nAuthorization: Bearer wk_key\r\n" in request for request in requests)


@needs_wrk
async def test_a_hot_load_is_all_of_the_first_wallet(tmp_path: Path) -> None:
    _, requests = await send(tmp_path, "fund", hot=True)

    assert {parts(request)[0] for request in requests} == {WALLETS[0]}
    assert {parts(request)[2]["amount"] for request in requests} == {"0.01"}


@needs_wrk
async def test_half_of_a_mixed_load_is_funds_and_half_transfers_of_any_wallet(tmp_path: Path) -> None:
    _, requests = await send(tmp_path, "mixed")

    routes = [request.split(b" ", 2)[1].rsplit(b"/", 1)[1].decode() for request in requests]
    receivers = [parts(request)[2].get("to_wallet_id") for request in requests]
    assert [route == "transfer" for route in routes] == [receiver is not None for receiver in receivers]
    assert set(routes) == {"fund", "transfer"}
    assert 0.25 < routes.count("fund") / len(routes) < 0.75
    assert {parts(request)[0] for request in requests} == set(WALLETS)


@needs_wrk
async def test_a_schedule_is_kept_and_not_overtaken(tmp_path: Path) -> None:
    answers, requests = await send(tmp_path, "transfer", rate=100)

    assert 97 <= answers.done <= len(requests) <= 100 * answers.seconds + CONNECTIONS


def test_other_replies_are_told_by_status() -> None:
    answers = wrk.read(
        '{"seconds":2.0,"statuses":{"200":30,"503":4},"latency_ms":{"50":1.5},"late_ms_max":0,"broken":0}'
    )

    assert (answers.done, answers.refused, answers.rate) == (30, {"503": 4}, 15.0)


def test_requests_without_a_reply_are_no_figure() -> None:
    with pytest.raises(LoadError, match="1 requests had no reply"):
        wrk.read('{"seconds":2.0,"latency_ms":{},"late_ms_max":0,"statuses":{"200":30},"broken":1}')


def test_sides_take_turns_after_a_warm_up_that_does_not_count() -> None:
    asked: list[tuple[str, float]] = []

    def side(name: str, rate: float) -> Side:
        def ask(seconds: float) -> float:
            asked.append((name, seconds))
            return rate

        return ask

    plan = replace(QUICK, rounds=2, warmup_seconds=3, load_seconds=5)

    assert in_turn(plan, side("ours", 80.0), side("peer", 10.0)) == ([80.0, 80.0], [10.0, 10.0])
    assert asked == [("ours", 3), ("peer", 3), *[("ours", 5), ("peer", 5)] * 2]
    with pytest.raises(LoadError, match="nothing was done"):
        in_turn(plan, side("ours", 80.0), side("peer", 0.0))


def test_a_machine_without_wrk_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingGeneratorError, match="apt-get install wrk"):
        wrk.require_wrk()
