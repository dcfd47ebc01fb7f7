"""The bounds of connections: how many, and how long each may keep the server waiting."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from common.http.connections import ConnectionBounds, backlog_within, connections_within
from support.raw_http import Client, Reply, post, request, serving

BOUNDS = ConnectionBounds(head_deadline_seconds=0.6, body_deadline_seconds=0.6, reply_stall_seconds=1.0)
FEW = ConnectionBounds(connections_max=4, head_deadline_seconds=60, body_deadline_seconds=60)
LARGE_BYTES = 20_000_000


class SteeredApplication:
    """An application whose requests wait for `let_go`, except those of `/now` and `/early`."""

    def __init__(self) -> None:
        self.let_go = False
        self.begun = 0
        self.bodies: list[bytes] = []
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        body = b""
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] != "http.request":
                self.left += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        while scope["path"] == "/wait" and not self.let_go:
            await asyncio.sleep(0.005)
        self.bodies.append(body)
        content = b"x" * LARGE_BYTES if scope["path"] == "/large" else scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def app() -> SteeredApplication:
    return SteeredApplication()


@pytest.fixture(params=["uvloop", "asyncio"])
def port(request: pytest.FixtureRequest, app: SteeredApplication) -> Iterator[int]:
    with serving(app, BOUNDS, loop=request.param) as port:
        yield port


@pytest.fixture(params=["uvloop", "asyncio"])
def small_port(request: pytest.FixtureRequest, app: SteeredApplication) -> Iterator[int]:
    with serving(app, FEW, loop=request.param) as port:
        yield port


@pytest.fixture
def ended() -> Callable[[str], float]:
    """How many connections servers have ended for a reason since the test began."""

    def count(reason: str) -> float:
        return REGISTRY.get_sample_value("http_connections_ended_total", {"reason": reason}) or 0

    reasons = ("head-deadline", "body-deadline", "reply-stalled", "refused", "gave-way", "at-capacity")
    before = {reason: count(reason) for reason in reasons}
    return lambda reason: count(reason) - before[reason]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["code"]


def trickle(client: Client) -> None:
    for _ in range(10_000):
        client.socket.send(b"x")
        time.sleep(0.01)


TIMEOUT = (408, "request-timeout")


def test_a_connection_that_sends_nothing_is_closed(port: int, ended: Callable[[str], float]) -> None:
    with Client(port) as client:
        assert client.closed()
    assert ended("head-deadline") == 1


def test_a_connection_that_has_been_idle_after_a_reply_is_closed(port: int, ended: Callable[[str], float]) -> None:
    with Client(port) as client:
        assert client.send(post("/now")).reply().status == 200
        assert client.closed()
    assert ended("head-deadline") == 0


@pytest.mark.parametrize("before", [b"", post("/now")], ids=["first", "after a reply"])
def test_a_head_that_does_not_end_is_answered_408(port: int, before: bytes, ended: Callable[[str], float]) -> None:
    with Client(port) as client:
        if before:
            assert client.send(before).reply().status == 200
        client.send(b"GET /now HTTP/1.1\r\nHost:")
        reply = client.reply()
        assert (*code(reply), reply.headers["connection"]) == (*TIMEOUT, "close")
        assert client.closed()
    assert ended("head-deadline") == 1


def test_a_head_that_arrives_byte_by_byte_has_the_same_deadline(port: int) -> None:
    with Client(port) as client:
        client.socket.settimeout(0.05)
        began = time.monotonic()
        got = b""
        for byte in b"GET /now HTTP/1.1\r\n" + b"X: x\r\n" * 100:
            client.socket.send(bytes([byte]))
            try:
                got = client.socket.recv(65536)
                break
            except TimeoutError:
                continue
        assert got.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began >= BOUNDS.head_deadline_seconds


@pytest.mark.parametrize("path", ["/now", "/wait"])
def test_a_body_that_does_not_end_is_answered_408_and_its_request_does_not_run(
    port: int, app: SteeredApplication, path: str, ended: Callable[[str], float]
) -> None:
    with Client(port) as client:
        client.send(request(f"POST {path} HTTP/1.1", ["Content-Length: 9"], b"part"))
        assert code(client.reply()) == TIMEOUT
        assert client.closed()
    until(lambda: app.left == 1)
    assert (app.bodies, ended("body-deadline")) == ([], 1)


def test_a_body_that_goes_on_after_its_reply_has_a_deadline(port: int) -> None:
    with Client(port) as client:
        client.send(request("POST /early HTTP/1.1", ["Content-Length: 1000000"]))
        assert client.reply().body == b"/early"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            trickle(client)


def test_a_reply_may_take_longer_than_the_deadlines_of_the_request(port: int, app: SteeredApplication) -> None:
    with Client(port) as client:
        client.send(post("/wait", b"body"))
        until(lambda: app.begun == 1)
        time.sleep(BOUNDS.head_deadline_seconds + 0.5)
        app.let_go = True
        assert client.reply().body == b"/wait"
        assert client.send(post("/now")).reply().body == b"/now"


def test_the_connection_of_a_client_that_does_not_read_its_reply_is_closed(
    port: int, ended: Callable[[str], float]
) -> None:
    with Client(port, receive_bytes=4096) as client:
        client.send(post("/large"))
        until(lambda: ended("reply-stalled") == 1)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.reply()


def test_a_client_that_reads_its_reply_slowly_gets_all_of_it(port: int) -> None:
    with Client(port, receive_bytes=4096) as client:
        client.send(post("/large"))
        began, got = time.monotonic(), 0
        while time.monotonic() - began < 1.5 * BOUNDS.reply_stall_seconds:
            got += len(client.socket.recv(100_000))
            time.sleep(0.02)
        assert got < LARGE_BYTES
        while got < LARGE_BYTES:
            more = len(client.socket.recv(1_000_000))
            assert more
            got += more


@pytest.mark.parametrize("path", ["/now", "/wait", "/large"])
def test_a_client_that_has_shut_down_its_sending_side_gets_its_whole_reply(
    port: int, app: SteeredApplication, path: str
) -> None:
    with Client(port) as client:
        client.send(post(path, b"body")).finish()
        until(lambda: app.begun == 1)
        app.let_go = True
        assert len(client.reply().body) == (LARGE_BYTES if path == "/large" else len(path))
        assert client.closed()
    assert app.bodies == [b"body"]


def test_all_requests_before_the_end_of_the_input_are_answered(port: int, app: SteeredApplication) -> None:
    with Client(port) as client:
        client.send(post("/wait") + post("/now") + post("/early")).finish()
        until(lambda: app.begun == 1)
        app.let_go = True
        assert [client.reply().body for _ in range(3)] == [b"/wait", b"/now", b"/early"]
        assert client.closed()


@pytest.mark.parametrize(
    "half",
    [
        b"POST /now HTT",
        b"POST /now HTTP/1.1\r\nHost: a\r\n",
        request("POST /now HTTP/1.1", ["Content-Length: 9"], b"p"),
    ],
    ids=["line", "head", "body"],
)
@pytest.mark.parametrize("behind", [False, True])
def test_an_incomplete_request_at_the_end_of_the_input_is_dropped(
    port: int, app: SteeredApplication, half: bytes, *, behind: bool
) -> None:
    with Client(port) as client:
        client.send((post("/wait", b"whole") if behind else b"") + half).finish()
        if behind:
            until(lambda: app.begun == 1)
            app.let_go = True
            assert client.reply().body == b"/wait"
        assert client.closed()
    assert app.bodies == ([b"whole"] if behind else [])


def test_the_connections_of_clients_that_have_left_are_free_again(small_port: int, app: SteeredApplication) -> None:
    for _ in range(2 * FEW.connections_max):
        with Client(small_port) as client:
            client.send(post("/wait"))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    app.let_go = True
    with Client(small_port) as client:
        assert client.send(post("/now")).reply().body == b"/now"


def test_at_the_limit_a_new_connection_replaces_the_one_that_has_been_idle_longest(
    small_port: int, ended: Callable[[str], float]
) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Client(small_port)) for _ in range(FEW.connections_max)]
        asking = stack.enter_context(Client(small_port))
        assert asking.send(post("/now")).reply().body == b"/now"
        assert silent[0].closed()
        assert ended("gave-way") == 1
        assert silent[-1].send(post("/now")).reply().body == b"/now"


def test_a_connection_with_a_request_under_way_is_not_replaced_and_a_new_one_is_answered_503(
    small_port: int, app: SteeredApplication, ended: Callable[[str], float]
) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(Client(small_port)).send(post("/wait")) for _ in range(FEW.connections_max)]
        until(lambda: app.begun == len(busy))
        with Client(small_port) as refused:
            reply = refused.reply()
            assert (*code(reply), reply.headers["retry-after"]) == (503, "unavailable", "1")
            assert refused.closed()
        assert ended("at-capacity") == 1
        app.let_go = True
        assert {client.reply().body for client in busy} == {b"/wait"}


def test_the_gauge_counts_the_open_connections(port: int) -> None:
    def gauge() -> float:
        return REGISTRY.get_sample_value("http_connections_open") or 0

    with Client(port) as client:
        assert client.send(post("/now")).reply().status == 200
        until(lambda: gauge() == 1)
    until(lambda: gauge() == 0)


@pytest.mark.parametrize("files_max", [256, 1024, 4096, 65_536, 1_048_576])
def test_connections_leave_open_files_for_the_process_and_for_the_backlog(files_max: int) -> None:
    most = connections_within(files_max, 10**9, 10)
    assert most + 2 * backlog_within(files_max) + 10 < files_max
    assert most >= files_max // 2 - 74
    assert connections_within(files_max, 3, 10) == 3


def test_a_limit_of_open_files_that_leaves_no_connection_is_refused_with_the_remedy() -> None:
    with pytest.raises(OSError, match="leave none"):
        connections_within(256, 1000, 200)
