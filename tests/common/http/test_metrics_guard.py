"""Who reads `/metrics`."""

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from common.http.metrics_guard import MetricsGuard
from common.http.probes import probe_routes
from common.http.problem_responses import EXCEPTION_HANDLERS
from common.secrets import Secret


async def checks() -> dict[str, str]:
    return {}


def client_of(host: str, token: Secret | None) -> httpx.AsyncClient:
    app = Starlette(routes=probe_routes(checks, MetricsGuard(host, token)), exception_handlers=dict(EXCEPTION_HANDLERS))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops.test")


async def statuses(client: httpx.AsyncClient, authorization: str | None = None) -> list[int]:
    headers = [(b"Authorization", authorization.encode())] if authorization else []
    return [(await client.get(path, headers=headers)).status_code for path in ("/live", "/ready", "/metrics")]


@pytest.mark.parametrize(("host", "metrics"), [("127.0.0.1", 200), ("localhost", 200), ("0.0.0.0", 403), ("::", 403)])
async def test_without_a_token_metrics_are_for_loopback_alone_and_probes_for_everyone(host: str, metrics: int) -> None:
    async with client_of(host, None) as client:
        assert await statuses(client) == [200, 200, metrics]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_with_a_token_metrics_are_for_those_who_send_it(host: str) -> None:
    async with client_of(host, Secret("s3cr\u00e9t")) as client:
        for wrong in (None, "Bearer", "Bearer s3cret", "Basic s3cr\u00e9t", "s3cr\u00e9t"):
            assert await statuses(client, wrong) == [200, 200, 401]
        for right in ("Bearer s3cr\u00e9t", "bearer s3cr\u00e9t"):
            assert await statuses(client, right) == [200, 200, 200]


async def test_wrong_tokens_are_slowed_down_and_no_reply_shows_the_right_one() -> None:
    async with client_of("0.0.0.0", Secret("canary")) as client:
        replies = [await client.get("/metrics", headers={"Authorization": f"Bearer {n}"}) for n in range(12)]
        assert [reply.status_code for reply in replies][:10] == [401] * 10
        assert replies[-1].status_code == 429
        assert await statuses(client) == [200, 200, 429]
    assert not any("canary" in f"{reply.headers}{reply.text}" for reply in replies)


async def test_a_token_in_a_file_is_read_again_and_a_missing_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    async with client_of("0.0.0.0", Secret(file=file)) as client:
        assert (await statuses(client, "Bearer old"))[-1] == 200
        file.write_text("new\n")
        assert [(await statuses(client, f"Bearer {token}"))[-1] for token in ("old", "new")] == [401, 200]
        file.unlink()
        assert await statuses(client, "Bearer new") == [200, 200, 503]
