"""The history API keeps to HTTP as the wallet API does."""

import httpx
import pytest

from support.history_events import History, Wallet


async def test_head_is_get_without_content_on_every_path(api: httpx.AsyncClient, history: History) -> None:
    ada = Wallet("ada")
    await history.add(ada.created(), ada.funded("50.00"))
    paths = [f"/history/wallets/{ada.id}?limit=1", "/history/users/ada", "/live", "/ready", "/openapi.json", "/history"]
    for path in paths:
        got, head = await api.get(path), await api.head(path)
        assert (head.status_code, head.headers, head.content) == (got.status_code, got.headers, b"")
        assert int(head.headers["content-length"]) == len(got.content)


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
async def test_a_method_that_a_path_does_not_know_is_told_those_that_it_knows(
    api: httpx.AsyncClient, method: str
) -> None:
    response = await api.request(method, "/history/users/ada")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.json()["code"] == "method-not-allowed"
