"""Where a request ends: the bytes of one request never run as another request (RFC 9112)."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from common.http.framing import FIELDS_MAX, HEAD_BYTES_MAX
from support.raw_http import Client, Reply, post, request, serving

INNER = post("/inner")
CHUNKED = "Transfer-Encoding: chunked"


class Recorder:
    """An application that records each complete request, and answers with its path."""

    def __init__(self) -> None:
        self.port = 0
        self.ran: list[tuple[str, bytes]] = []
        self.fields: list[set[bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        if scope["path"] == "/slow":
            await asyncio.sleep(0.2)
        self.ran.append((scope["path"], body))
        self.fields.append({name for name, _ in scope["headers"]})
        content = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    recorder = Recorder()
    with serving(recorder, loop=request.param) as recorder.port:
        yield recorder


@pytest.fixture
def server(running: Recorder) -> Recorder:
    """The server, with no recorded request."""
    running.ran.clear()
    running.fields.clear()
    return running


def assert_problem(reply: Reply, status: int) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["connection"] == "close"
    document = json.loads(reply.body)
    assert (document["status"], bool(document["detail"])) == (status, True)


OFFERS = [
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
    ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="],
    ["connection: upgrade", "upgrade: TLS/1.0", "upgrade: other"],
]
SEGMENTS = {"at once": 0, "head, then body": -1, "byte by byte": 1}


@pytest.mark.parametrize("offer", OFFERS, ids=["h2c", "websocket", "other"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_the_body_behind_an_offer_to_upgrade_stays_a_body(
    server: Recorder, offer: list[str], framing: str, segments: str
) -> None:
    if framing == "length":
        head, body = request(fields=[*offer, f"Content-Length: {len(INNER)}"]), INNER
    else:
        head, body = request(fields=[*offer, CHUNKED]), b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER)
    whole = head + body + post("/next")
    with Client(server.port) as client:
        if segments == "at once":
            client.send(whole)
        elif segments == "byte by byte":
            client.send(*(whole[at : at + 1] for at in range(len(whole))), pause_seconds=0.0005)
        else:
            client.send(head, body + post("/next"))
        assert [client.reply().body, client.reply().body] == [b"/first", b"/next"]
    assert server.ran == [("/first", INNER), ("/next", b"")]


def test_requests_behind_offers_to_upgrade_without_a_body_are_answered_in_order(server: Recorder) -> None:
    count = 500
    with Client(server.port) as client:
        client.send(b"".join(request(f"GET /{number} HTTP/1.1", OFFERS[number % 3]) for number in range(count)))
        assert [client.reply().body for _ in range(count)] == [b"/%d" % number for number in range(count)]


def test_a_client_that_offers_to_upgrade_still_gets_its_100_continue(server: Recorder) -> None:
    with Client(server.port) as client:
        client.send(request(fields=[*OFFERS[0], "Content-Length: 4", "Expect: 100-continue"]))
        assert client.reply().status == 100
        assert client.send(b"body").reply().status == 200
    assert server.ran == [("/first", b"body")]


REFUSED = {
    "two lengths": request(fields=["Content-Length: 4", "Content-Length: 5"], body=b"body"),
    "a length twice": request(fields=["Content-Length: 4", "Content-Length: 4"], body=b"body"),
    "a list of lengths": request(fields=["Content-Length: 4, 4"], body=b"body"),
    "a length with a sign": request(fields=["Content-Length: +4"], body=b"body"),
    "a negative length": request(fields=["Content-Length: -4"], body=b"body"),
    "a hexadecimal length": request(fields=["Content-Length: 0x4"], body=b"body"),
    "a length past 64 bits": request(fields=["Content-Length: 18446744073709551620"], body=b"body"),
    "no length in the field": request(fields=["Content-Length: "], body=b"body"),
    "a length and chunks": request(fields=["Content-Length: 4", CHUNKED], body=b"0\r\n\r\n"),
    "chunks and a length": request(fields=[CHUNKED, "Content-Length: 4"], body=b"0\r\n\r\n"),
    "a folded line": request(fields=["X: a\r\n b", "Content-Length: 4"], body=b"body"),
    "a folded transfer encoding": request(fields=["Transfer-Encoding:\r\n chunked"], body=b"0\r\n\r\n"),
    "a first line that begins with a space": request(fields=[" X: a"], host=""),
    "a bare line feed in a chunk extension": request(fields=[CHUNKED], body=b"4;a\nb\r\nbody\r\n0\r\n\r\n"),
    "a space behind a chunk's size": request(fields=[CHUNKED], body=b"4 \r\nbody\r\n0\r\n\r\n"),
    "a chunk's size with 0x": request(fields=[CHUNKED], body=b"0x4\r\nbody\r\n0\r\n\r\n"),
    "a negative chunk": request(fields=[CHUNKED], body=b"-4\r\nbody\r\n0\r\n\r\n"),
    "a chunk past 64 bits": request(fields=[CHUNKED], body=b"10000000000000004\r\nbody\r\n0\r\n\r\n"),
    "a chunk without a size": request(fields=[CHUNKED], body=b"\r\nbody\r\n0\r\n\r\n"),
    "a chunk longer than it says": request(fields=[CHUNKED], body=b"4\r\nbodyX\r\n0\r\n\r\n"),
    "a bare line feed behind a chunk's size": request(fields=[CHUNKED], body=b"4\nbody\r\n0\r\n\r\n"),
    "a bare line feed behind a chunk": request(fields=[CHUNKED], body=b"4\r\nbody\n0\r\n\r\n"),
    "bare line feeds behind the last chunk": request(fields=[CHUNKED], body=b"4\r\nbody\r\n0\n\n"),
    "a bare carriage return behind a chunk's size": request(fields=[CHUNKED], body=b"4\rbody\r\n0\r\n\r\n"),
    "gzip, chunked": request(fields=["Transfer-Encoding: gzip, chunked"], body=b"4\r\nbody\r\n0\r\n\r\n"),
    "gzip and chunked": request(fields=["Transfer-Encoding: gzip", CHUNKED], body=b"4\r\nbody\r\n0\r\n\r\n"),
    "chunked twice": request(fields=[CHUNKED, CHUNKED], body=b"4\r\nbody\r\n0\r\n\r\n"),
    "identity": request(fields=["Transfer-Encoding: identity"], body=INNER),
    "chunked, identity": request(fields=["Transfer-Encoding: chunked, identity"], body=b"0\r\n\r\n"),
    "a coding that ends like chunked": request(fields=["Transfer-Encoding: xchunked"], body=b"0\r\n\r\n"),
    "a vertical tab before chunked": request(fields=["Transfer-Encoding: \x0bchunked"], body=b"0\r\n\r\n"),
    "chunks to HTTP/1.0": request("POST /first HTTP/1.0", [CHUNKED], b"0\r\n\r\n"),
    "gzip, chunked behind an offer": request(
        fields=[*OFFERS[0], "Transfer-Encoding: gzip, chunked"], body=b"4\r\nbody\r\n0\r\n\r\n"
    ),
    "a space before the colon": request(fields=["Content-Length : 4"], body=b"body"),
    "no host": request(host=""),
    "two hosts": request(fields=["Host: b"]),
    "a host twice": request(fields=["Host: a"]),
    "a host with a space": request(host="a b"),
    "a host with a path": request(host="a/b"),
    "a host with a user": request(host="u@a"),
    "a host with a bad port": request(host="a:b"),
    "two hosts behind an offer": request(fields=[*OFFERS[0], "Host: b"]),
    "a NUL in a value": request(fields=["X: a\x00b"]),
    "a control character in a value": request(fields=["X: a\x01b"]),
    "a carriage return in a value": request(fields=["X: a\rb"]),
    "a NUL in a name": request(fields=["X\x00: a"]),
    "no colon": request(fields=["X"]),
    "no name": request(fields=[": a"]),
    "bare line feeds": b"POST /first HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "one bare line feed": b"POST /first HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n",
    "a bare line feed at the end of the head": b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\n",
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/0.9 by name": request("GET /first HTTP/0.9"),
    "HTTP/1.2": request("GET /first HTTP/1.2"),
    "HTTP/2.0": request("GET /first HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a space in the target": request("GET /first second HTTP/1.1"),
    "a control character in the target": request("GET /first\x01 HTTP/1.1"),
    "a target that is not ASCII": request("GET /first\xe9 HTTP/1.1"),
    "a target without a path": request("GET a:80 HTTP/1.1"),
    "an unknown method": request("FROB /first HTTP/1.1"),
}


@pytest.mark.parametrize("behind", ["at once", "later"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_is_not_http_is_refused_and_no_later_request_runs(
    server: Recorder, case: str, behind: str
) -> None:
    with Client(server.port) as client:
        client.send(REFUSED[case] + INNER) if behind == "at once" else client.send(REFUSED[case], INNER)
        assert_problem(client.reply(), 400)
        assert client.closed()
    assert server.ran == []


def test_connect_is_refused_and_no_later_request_runs(server: Recorder) -> None:
    with Client(server.port) as client:
        client.send(request("CONNECT a:80 HTTP/1.1") + INNER, INNER)
        assert_problem(client.reply(), 405)
        assert client.closed()
    assert server.ran == []


TAKEN = {
    "a chunk extension": (request(fields=[CHUNKED], body=b'4;a="b\\"c";d\r\nbody\r\n0\r\n\r\n'), b"body"),
    "chunked in capitals": (request(fields=["Transfer-Encoding:\tCHUNKED"], body=b"4\r\nbody\r\n0\r\n\r\n"), b"body"),
    "an absolute target": (request("POST http://b/first HTTP/1.1"), b""),
    "empty lines before": (b"\r\n\r\n" + post("/first"), b""),
    "an address and a port": (request(host="[::1]:8000"), b""),
    "an empty host": (request(fields=["Host:"], host=""), b""),
    "obsolete text in a value": (request(fields=["X: \xe9"]), b""),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_http_allows_is_accepted_and_the_connection_stays_open(server: Recorder, case: str) -> None:
    sent, body = TAKEN[case]
    with Client(server.port) as client:
        assert client.send(sent + post("/next")).reply().status == 200
        assert client.reply().body == b"/next"
    assert server.ran == [("/first", body), ("/next", b"")]


@pytest.mark.parametrize(
    "last", [request("POST /first HTTP/1.0", host=""), post("/first", b"", "Connection: close")], ids=["1.0", "close"]
)
def test_no_request_runs_after_one_that_closes_the_connection(server: Recorder, last: bytes) -> None:
    with Client(server.port) as client:
        assert client.send(last + INNER).reply().headers["connection"] == "close"
        assert client.closed()
    assert server.ran == [("/first", b"")]


def test_fields_behind_a_chunked_body_are_not_the_requests_headers(server: Recorder) -> None:
    trailers = b"4\r\nbody\r\n0\r\nIdempotency-Key: k\r\nExpect: 100-continue\r\n\r\n"
    with Client(server.port) as client:
        assert client.send(request(fields=[CHUNKED], body=trailers)).reply().status == 200
    assert server.fields == [{b"host", b"transfer-encoding"}]


@pytest.mark.parametrize("bad", [b"GARBAGE\r\n\r\n", request(fields=[CHUNKED], body=b"x\r\n"), request(host="")])
def test_requests_before_a_refused_one_get_their_replies_first(server: Recorder, bad: bytes) -> None:
    with Client(server.port) as client:
        client.send(post("/slow") + post("/second") + bad + INNER)
        assert [client.reply().body, client.reply().body] == [b"/slow", b"/second"]
        assert_problem(client.reply(), 400)
        assert client.closed()
    assert [path for path, _ in server.ran] == ["/slow", "/second"]


@pytest.mark.parametrize(
    "segments",
    [
        [request(fields=["X: " + "x" * HEAD_BYTES_MAX])],
        [request(fields=["X: " + "x" * 1000] * 40)],
        [request("GET /" + "x" * HEAD_BYTES_MAX + " HTTP/1.1")],
        [b"GET / HTTP/1.1\r\nX: ", *[b"x" * 4096] * (HEAD_BYTES_MAX // 4096 + 1)],
    ],
    ids=["one field", "many fields", "the target", "without an end"],
)
def test_a_head_over_the_limit_is_refused_before_its_end(server: Recorder, segments: list[bytes]) -> None:
    with Client(server.port) as client:
        client.send(*segments)
        assert_problem(client.reply(), 431)
        assert client.closed()
    assert server.ran == []


def test_a_large_body_in_one_segment_with_its_head_does_not_count_as_head(server: Recorder) -> None:
    with Client(server.port) as client:
        assert client.send(post("/first", b"x" * 100_000)).reply().status == 200


def test_a_request_may_have_a_hundred_header_lines(server: Recorder) -> None:
    with Client(server.port) as client:
        at_limit = [f"X-{number}: x" for number in range(FIELDS_MAX - 1)]
        assert client.send(request("GET / HTTP/1.1", at_limit)).reply().status == 200
        client.send(request("GET / HTTP/1.1", [*at_limit, "X: x"]))
        assert_problem(client.reply(), 431)
        assert client.closed()
    assert len(server.ran) == 1


def test_ten_megabytes_of_a_header_are_refused_at_the_limit_and_read_by_nothing(server: Recorder) -> None:
    with Client(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + b"x" * 2 * HEAD_BYTES_MAX)
        assert_problem(client.reply(), 431)
        with suppress(ConnectionError):
            client.send(b"x" * 10_000_000)
    with Client(server.port) as client:
        assert client.send(post("/next")).reply().status == 200
    assert [path for path, _ in server.ran] == ["/next"]
