import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from support.command_lines import WalletCtl, walletctl
from walletctl.console import Exit
from walletctl.demo import demo
from walletctl.demo.pipelines import Pipeline, pipeline_of_environment

__all__ = ["walletctl"]

SERVICES = {
    "WALLET_API_URL": "http://127.0.0.1:9",
    "HISTORY_API_URL": "http://127.0.0.1:9",
    "WALLET_API_KEY": "wk_test",
}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_proxy_stands_between_the_demo_and_its_stack(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def ask() -> int:
        pipeline = Pipeline(url, url, "key", None, uses_proxies=False)
        async with demo._client(url, pipeline) as client:
            return (await client.get("/")).status_code

    assert asyncio.run(ask()) == httpx.codes.NO_CONTENT


@pytest.mark.parametrize("missing", SERVICES)
def test_a_missing_variable_is_named_in_one_line(walletctl: WalletCtl, missing: str) -> None:
    result = walletctl("stack", "demo", "--against-env", **{**SERVICES, missing: ""})
    assert result.returncode == Exit.USAGE
    assert len(result.stderr.splitlines()) == 1
    assert [name for name in SERVICES if name in result.stderr] == [missing]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"DATABASE_URL": "postgresql://127.0.0.1:9/wallet"}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}, "DATABASE_URL"),
    ],
)
def test_the_audit_needs_both_its_servers(walletctl: WalletCtl, given: dict[str, str], missing: str) -> None:
    result = walletctl("stack", "demo", "--against-env", **SERVICES, **given)
    assert result.returncode == Exit.USAGE
    assert len(result.stderr.splitlines()) == 1
    assert missing in result.stderr


def test_an_api_that_is_away_is_told_in_one_line(walletctl: WalletCtl) -> None:
    result = walletctl("stack", "demo", "--against-env", **SERVICES)
    assert result.returncode == Exit.FOUND_WRONG
    assert len(result.stderr.splitlines()) == 1
    assert "did not answer the demo" in result.stderr


def test_without_the_servers_the_demo_says_what_it_did_not_prove(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in SERVICES.items():
        monkeypatch.setenv(name, value)
    with pipeline_of_environment() as pipeline:
        assert pipeline.audit_environment is None
    demo._print(demo.Figures(Counter({"funds": 1}), 1.0, 0.1, [0.01, 0.02], None, []), 2.0, as_json=False)
    output = capsys.readouterr().out
    assert "not verified: ledger, outbox, topic and history" in output
    assert "every promise held" not in output
