"""The history's pages, its filters, and whether a version is missing."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest

from common.events.models import AnyEvent, HoldCaptured, HoldCreated, HoldHasExpired, HoldVoided
from common.postgres.database_health import INTERVAL_SECONDS, TIMEOUT_SECONDS
from history_consumer.projection import EVENT_TYPES
from support.history_events import History, Wallet
from support.proxy import Proxy

ODD_USER = "größe/中>…"


async def get(api: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    reply = await api.get(path, params=query)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def all_pages(api: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Follow the links to the end."""
    items, pages = [], 0
    reply = await api.get(path, params=query)
    while True:
        body = reply.json()
        items += body["items"]
        pages += 1
        assert pages < 50
        if body["next_cursor"] is None:
            assert "Link" not in reply.headers
            return items
        reply = await api.get(reply.links["next"]["url"])


async def test_an_item_says_what_happened_to_the_wallet(api: httpx.AsyncClient, history: History) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    await history.add(ada.created(), bob.created(), ada.funded("50.00"), sent := ada.sent(bob, "30.00"))
    body = await get(api, f"/history/wallets/{ada.id}")
    assert (body["complete"], body["as_of_version"], body["next_cursor"]) == (True, 3, None)
    assert [item["event_type"] for item in body["items"]] == ["TRANSFER_SENT", "WALLET_FUNDED", "WALLET_CREATED"]
    item = body["items"][0]
    assert item.pop("recorded_at").endswith("Z")
    assert item.pop("created_at") == sent.created_at.isoformat().replace("+00:00", "Z")
    assert item == {
        "event_id": str(sent.event_id),
        "event_type": "TRANSFER_SENT",
        "wallet_id": str(ada.id),
        "wallet_version": 3,
        "user_id": "ada",
        "transaction_id": str(sent.transaction_id),
        "direction": "out",
        "amount": "30.00",
        "currency": "EUR",
        "balance_after": "20.00",
        "counterparty_wallet_id": str(bob.id),
        "event_data": {**sent.model_dump(mode="json"), "wallets": [sent.wallets[0].model_dump(mode="json")]},
    }
    created = body["items"][2]
    assert (created["amount"], created["direction"], created["transaction_id"]) == (None, None, None)
    received = (await get(api, f"/history/wallets/{bob.id}"))["items"][0]
    assert (received["event_type"], received["direction"], received["amount"]) == ("TRANSFER_RECEIVED", "in", "30.00")
    assert (received["balance_after"], received["counterparty_wallet_id"]) == ("30.00", str(ada.id))


async def test_each_wallet_is_shown_its_own_side_of_every_event_and_nothing_of_the_other(
    api: httpx.AsyncClient, history: History
) -> None:
    ada, bob, own = Wallet("ada"), Wallet("bob"), Wallet("ada")
    done: list[AnyEvent] = [
        ada.created(),
        bob.created(),
        own.created(),
        ada.funded("71.07"),
        ada.withdrawn("3.07"),
        ada.sent(bob, "5.03"),
        bob.sent(ada, "1.01"),
        ada.sent(own, "2.09"),
        ada.split((bob, "3.17"), (own, "2.03")),
        ada.held(HoldCreated),
        ada.held(HoldCaptured, bob),
        ada.held(HoldVoided, reason="no show"),
        ada.held(HoldHasExpired),
        bob.reversed(ada, "0.31"),
        ada.got_back((bob, "0.17"), (own, "0.13")),
        bob.restated("FREEZE", blocks="out"),
        bob.restated("UNFREEZE"),
        bob.restated("CLOSE", sweep=None),
        bob.restated("REOPEN"),
        bob.restated("LIMITS", overdraft_limit="5.00", balance_max=None, velocity=[]),
    ]
    await history.add(*done)
    sides = {(event.event_id, side.wallet_id): side.model_dump(mode="json") for event in done for side in event.wallets}
    whole = {event.event_id: event.model_dump(mode="json") for event in done}
    paths = [*(f"/history/wallets/{wallet.id}" for wallet in (ada, bob, own)), "/history/users/ada"]
    pages = [await get(api, path) for path in paths]
    items = [item for page in pages for item in page["items"]]
    # Of a transfer between two wallets of one user, that user has two items, each with its own side.
    assert [len(page["items"]) for page in pages] == [13, 12, 4, 17]
    assert {item["event_type"] for item in items} == set(EVENT_TYPES)
    for item in items:
        key = UUID(item["event_id"]), UUID(item["wallet_id"])
        amount = {"amount": item["amount"]} if item["amount"] else {}
        event = whole[key[0]]
        hold = {"hold": {"id": event["hold"]["id"]}} if item["event_type"] == "HOLD_RECEIVED" else {}
        assert item["event_data"] == {**event, **amount, **hold, "wallets": [sides[key]]}
        assert item["balance_after"] == sides[key]["balance_after"]


async def test_a_receiver_of_a_split_is_shown_its_own_amount_and_nothing_of_the_others(
    api: httpx.AsyncClient, history: History
) -> None:
    ada, bob, cleo = (Wallet(name) for name in ("ada", "bob", "cleo"))
    await history.add(*(wallet.created() for wallet in (ada, bob, cleo)), ada.funded("50.00"))
    split = ada.split((bob, "12.34"), (cleo, "21.43")).model_copy(update={"external_id": "order 4711"})
    await history.add(split)
    sent, received, _ = [(await get(api, f"/history/wallets/{wallet.id}"))["items"][0] for wallet in (ada, bob, cleo)]
    assert (sent["event_type"], sent["amount"], sent["counterparty_wallet_id"]) == ("SPLIT_SENT", "33.77", None)
    assert sent["event_data"]["amount"] == "33.77"
    assert sent["event_data"]["external_id"] == "order 4711"
    assert (received["event_type"], received["amount"]) == ("SPLIT_RECEIVED", "12.34")
    assert received["counterparty_wallet_id"] == str(ada.id)
    assert received["event_data"] == {
        **split.model_dump(mode="json", exclude={"external_id"}),
        "amount": "12.34",
        "wallets": [split.wallets[1].model_dump(mode="json")],
    }
    for secret in (str(cleo.id), "cleo", "21.43", "33.77", "16.23", "order 4711"):
        assert secret not in json.dumps(received)


@pytest.mark.parametrize("limit", [1, 100])
async def test_no_page_holds_a_balance_or_a_user_of_another_wallet(
    api: httpx.AsyncClient, history: History, limit: int
) -> None:
    """No two wallets here ever have the same balance, so that a balance on a page shows whose it is."""
    wallets = [Wallet(f"user-{number}", balance=Decimal(1000 * number) + Decimal("0.37")) for number in range(1, 5)]
    done: list[AnyEvent] = [wallet.created() for wallet in wallets]
    for round_number in range(1, 4):
        for sender, receiver in itertools.permutations(wallets, 2):
            done.append(sender.sent(receiver, f"{round_number}.{sender.version:02d}"))
        done += [wallet.funded(f"{100 + wallet.version}.11") for wallet in wallets]
        done.append(wallets[0].split(*((receiver, f"{receiver.version}.{round_number}3") for receiver in wallets[1:])))
    await history.add(*done)
    sides = [side for event in done for side in event.wallets]
    for wallet in wallets:
        own = {text for side in sides if side.wallet_id == wallet.id for text in (side.balance_after, side.user_id)}
        theirs = {text for side in sides if side.wallet_id != wallet.id for text in (side.balance_after, side.user_id)}
        assert not own & theirs
        for path in (f"/history/wallets/{wallet.id}", f"/history/users/{wallet.user_id}"):
            items = await all_pages(api, path, limit=limit)
            assert len(items) == wallet.version
            told = set(re.findall(r'"([^"]*)"', json.dumps(items)))
            assert own <= told
            assert not told & theirs


async def test_an_event_of_more_levels_than_json_is_written_with_is_told_without_them(
    api: httpx.AsyncClient, history: History, rows: Callable[..., Any]
) -> None:
    ada = Wallet("ada")
    await history.add(ada.created(), ada.funded())
    deep = '"metadata":' + '{"a":' * 400 + "1" + "}" * 400
    await rows(
        "UPDATE history.transaction_events SET event_data = replace(event_data::text, '\"metadata\":{}', :deep)::json"
        " WHERE wallet_version = 2",
        deep=deep,
    )
    items = (await get(api, f"/history/wallets/{ada.id}"))["items"]
    assert [item["event_data"].get("metadata") for item in items] == [None, {"größe": "❤"}]
    assert items[0]["event_data"]["wallets"][0]["balance_after"] == "10.00"


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
async def test_pages_tell_everything_once_and_in_order(
    api: httpx.AsyncClient, history: History, order: str, limit: int
) -> None:
    ada, other = Wallet(ODD_USER, balance=Decimal(6)), Wallet(ODD_USER)
    await history.add(ada.created(), other.created(), *(ada.sent(other) for _ in range(6)))
    by_wallet = await all_pages(api, f"/history/wallets/{ada.id}", order=order, limit=limit)
    assert [item["wallet_version"] for item in by_wallet] == sorted(range(1, 8), reverse=order == "desc")
    by_user = await all_pages(api, f"/history/users/{quote(ODD_USER, safe='')}", order=order, limit=limit)
    keys = [(item["event_id"], item["wallet_id"]) for item in by_user]
    assert keys == sorted(set(keys), reverse=order == "desc")
    assert len(keys) == 14


async def test_filters_hold_over_all_pages(api: httpx.AsyncClient, history: History) -> None:
    ada, bob = Wallet("ada", balance=Decimal(3)), Wallet("bob")
    done: list[AnyEvent] = [
        ada.created(),
        bob.created(),
        *(ada.sent(bob) for _ in range(3)),
        bob.sent(ada),
        ada.funded(),
    ]
    await history.add(*done)
    path = f"/history/wallets/{ada.id}"
    kinds = ["TRANSFER_SENT", "WALLET_FUNDED"]
    found = await all_pages(api, path, event_type=kinds, limit=1)
    assert [item["event_type"] for item in found] == ["WALLET_FUNDED", *["TRANSFER_SENT"] * 3]
    first, last = done[2].created_at, done[4].created_at
    between = {"from": first.isoformat(), "to": last.isoformat()}
    found = await all_pages(api, path, limit=1, **between)
    assert [item["event_id"] for item in found] == [str(event.event_id) for event in (done[3], done[2])]
    found = await all_pages(api, "/history/users/ada", limit=1, event_type=kinds, **between)
    assert [item["event_id"] for item in found] == [str(event.event_id) for event in (done[3], done[2])]
    later = (last + timedelta(days=1)).isoformat()
    body = await get(api, path, **{"from": later})
    assert (body["items"], body["complete"], body["as_of_version"]) == ([], True, 6)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("query", [{}, {"event_type": "WALLET_FUNDED"}])
async def test_an_event_that_comes_late_between_two_pages_of_a_user_shows_in_their_count(
    api: httpx.AsyncClient, history: History, order: str, query: dict[str, str]
) -> None:
    """Late: events of two wallets are published independently, so an older one may arrive after a newer one."""
    ada, other = Wallet("ada"), Wallet("ada")
    done: list[AnyEvent] = [other.created(), ada.created(), ada.funded()]
    late = other.funded()
    done += [ada.funded(), ada.funded(), ada.funded()]
    await history.add(*done)

    async def read(*, with_late: bool) -> list[dict[str, Any]]:
        pages = [await get(api, "/history/users/ada", order=order, limit=1, **query)]
        while cursor := pages[-1]["next_cursor"]:
            if with_late and len(pages) == (5 if order == "asc" and not query else 3):
                await history.add(late)
            pages.append(await get(api, "/history/users/ada", order=order, limit=1, cursor=cursor, **query))
        return pages

    pages = await read(with_late=True)
    items = [item for page in pages for item in page["items"]]
    is_missed = str(late.event_id) not in {item["event_id"] for item in items}
    assert is_missed == (order == "asc")
    # By the events that had arrived, each page was complete.
    assert {page["complete"] for page in pages} == {True}
    assert (pages[0]["event_count"], pages[-1]["event_count"]) == (6, 7)
    pages = await read(with_late=False)
    assert str(late.event_id) in {item["event_id"] for page in pages for item in page["items"]}
    assert {page["event_count"] for page in pages} == {7}


async def test_what_a_wallets_pages_tell_up_to_as_of_version_is_final(api: httpx.AsyncClient, history: History) -> None:
    ada = Wallet("ada")
    done: list[AnyEvent] = [ada.created(), *(ada.funded() for _ in range(5))]
    await history.add(done[0], done[1], done[3])
    path = f"/history/wallets/{ada.id}"
    read: list[int] = []
    for late in ([done[5]], [done[2]], [done[4]], []):
        page = await get(api, path, order="asc")
        versions = [item["wallet_version"] for item in page["items"] if item["wallet_version"] <= page["as_of_version"]]
        assert versions[: len(read)] == read
        read = versions
        await history.add(*late)
    assert read == [1, 2, 3, 4, 5, 6]


async def test_a_cursor_is_of_one_list_order_and_filters(api: httpx.AsyncClient, history: History) -> None:
    ada, other, bob = Wallet("ada"), Wallet("ada"), Wallet("bob")
    await history.add(ada.created(), other.created(), bob.created(), *(wallet.funded() for wallet in (ada, other, bob)))
    moments = {"from": "2026-01-01T00:00:00Z", "to": "2999-01-01T01:00:00+01:00"}
    kinds = ["WALLET_FUNDED", "WALLET_CREATED"]
    lists: list[tuple[str, dict[str, Any]]] = [
        (path, {**query, "order": order})
        for path in (*(f"/history/wallets/{wallet.id}" for wallet in (ada, bob)), "/history/users/ada")
        for query in ({}, {"event_type": kinds}, moments, {"from": moments["from"]})
        for order in ("asc", "desc")
    ]
    cursors = [(await get(api, path, limit=1, **query))["next_cursor"] for path, query in lists]
    assert len(set(cursors)) == len(lists)
    assert max(map(len, cursors)) < 128
    for place, (path, query) in enumerate(lists):
        for cursor_of, cursor in enumerate(cursors):
            reply = await api.get(path, params={**query, "cursor": cursor, "limit": 3})
            assert reply.status_code == (200 if cursor_of == place else 422), (query, lists[cursor_of])
            if cursor_of != place:
                assert [error["field"] for error in reply.json()["errors"]] == ["cursor"]
    # Filters that select the same rows are of the same list.
    same = {"event_type": [*reversed(kinds), kinds[0]], "order": "asc"}
    cursor = cursors[lists.index((f"/history/wallets/{ada.id}", {"event_type": kinds, "order": "asc"}))]
    assert len((await get(api, f"/history/wallets/{str(ada.id).upper()}", cursor=cursor, **same))["items"]) == 1
    same = {"from": "2026-01-01T02:00:00+02:00", "order": "asc"}
    cursor = cursors[lists.index((f"/history/wallets/{ada.id}", {"from": moments["from"], "order": "asc"}))]
    assert len((await get(api, f"/history/wallets/{ada.id}", cursor=cursor, min_version=1, **same))["items"]) == 1


async def test_a_gap_shows_until_it_is_filled(api: httpx.AsyncClient, history: History) -> None:
    ada, other = Wallet("ada"), Wallet("ada")
    done: list[AnyEvent] = [ada.created(), *(ada.funded() for _ in range(4))]
    await history.add(done[0], done[1], done[3], other.created())
    body = await get(api, f"/history/wallets/{ada.id}")
    assert (body["complete"], body["as_of_version"], len(body["items"])) == (False, 2, 3)
    assert (await get(api, f"/history/wallets/{ada.id}", limit=1, order="asc"))["as_of_version"] == 2
    user = await get(api, "/history/users/ada")
    assert (user["complete"], user["as_of_version"]) == (False, None)
    await history.add(done[2], done[4])
    body = await get(api, f"/history/wallets/{ada.id}")
    assert (body["complete"], body["as_of_version"]) == (True, 5)
    assert (await get(api, "/history/users/ada"))["complete"] is True


async def test_a_history_without_its_beginning_is_as_of_version_zero(api: httpx.AsyncClient, history: History) -> None:
    ada = Wallet("ada", version=1)
    await history.add(ada.funded())
    body = await get(api, f"/history/wallets/{ada.id}")
    assert (body["complete"], body["as_of_version"], len(body["items"])) == (False, 0, 1)


async def test_what_is_not_known_is_empty_and_never_missing(api: httpx.AsyncClient) -> None:
    body = await get(api, f"/history/wallets/{uuid4()}")
    assert body == {"items": [], "next_cursor": None, "complete": False, "as_of_version": 0, "event_count": 0}
    body = await get(api, "/history/users/nobody")
    assert body == {"items": [], "next_cursor": None, "complete": False, "as_of_version": None, "event_count": 0}


async def test_min_version_waits_for_the_pipeline(api: httpx.AsyncClient, history: History) -> None:
    ada = Wallet("ada")
    done: list[AnyEvent] = [ada.created(), *(ada.funded() for _ in range(3))]
    await history.add(done[0], done[3])
    path = f"/history/wallets/{ada.id}"
    waiting = asyncio.create_task(api.get(path, params={"min_version": 4}))
    await history.add(done[2])
    assert not waiting.done()
    await history.add(done[1])
    reply = await waiting
    assert (reply.status_code, reply.json()["as_of_version"]) == (200, 4)
    assert (await api.get(path, params={"min_version": 3})).status_code == 200


async def test_min_version_that_does_not_come_is_a_503_to_ask_again(
    open_api: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]], database_url: str, history: History
) -> None:
    ada = Wallet("ada")
    await history.add(ada.created())
    async with open_api(database_url, history_min_version_wait_seconds=0.1) as api:
        for wallet_id in (ada.id, uuid4()):
            reply = await api.get(f"/history/wallets/{wallet_id}", params={"min_version": 2})
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
            assert reply.headers["Content-Type"] == "application/problem+json"
            assert reply.json()["code"] == "history-behind"


STRANGE = [
    ("limit", "0"),
    ("limit", "101"),
    ("limit", "9" * 400),
    ("limit", "x"),
    ("cursor", "x"),
    ("cursor", "\x00"),
    ("cursor", "é"),
    ("cursor", "WzFlNDAwXQ"),
    ("cursor", "W10"),
    ("cursor", "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd"),
    ("cursor", "AAAAAAAAWzFd"),
    ("cursor", "A" * 2000),
    ("order", "up"),
    ("event_type", "TRANSFER_DONE"),
    ("event_type", "\x00"),
    ("from", "yesterday"),
    ("from", "2026"),
    ("to", "0.5"),
    ("to", "2026-01-01"),
    ("from", "2026-01-01T00:00:00"),
    ("from", "0001-01-01T00:00:00+14:00"),
    ("to", "9999-12-31T23:59:59-14:00"),
    ("to", "9" * 400),
    ("to", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
]


@pytest.mark.parametrize(("name", "value"), STRANGE)
async def test_strange_queries_are_refused(api: httpx.AsyncClient, name: str, value: str) -> None:
    for path in (f"/history/wallets/{uuid4()}", "/history/users/ada"):
        reply = await api.get(path, params={name: value})
        assert reply.status_code == 422, reply.text
        assert reply.json()["code"] == "validation-error"


@pytest.mark.parametrize(
    "path",
    [
        "/history/wallets/1",
        "/history/wallets/%00",
        "/history/users/a%00b",
        "/history/users/a b",
        "/history/users/" + "x" * 65,
        "/history/users/",
        f"/history/wallets/{UUID(int=1)}?min_version=0",
        f"/history/wallets/{UUID(int=1)}?min_version={2**63}",
    ],
)
async def test_strange_paths_are_refused(api: httpx.AsyncClient, path: str) -> None:
    reply = await api.get(path)
    assert reply.status_code in {404, 422}, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query", ["from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z", "to=2026-01-01T00:00:00%2B02:00"]
)
async def test_the_ends_of_time_are_times(api: httpx.AsyncClient, query: str) -> None:
    assert (await api.get(f"/history/users/ada?{query}")).status_code == 200


async def test_a_slash_too_many_is_no_user(api: httpx.AsyncClient, history: History) -> None:
    ada, odd = Wallet("ada"), Wallet("ada/")
    await history.add(ada.created(), odd.created(), Wallet("a/b").created())
    for path in ("ada/", "ada//", "/ada", "a//b", "a%2Fb/", "ada%0A"):
        reply = await api.get(f"/history/users/{path}")
        assert (reply.status_code, reply.json()["code"]) == (404, "not-found"), path
    # An id that today's rules refuse, and older ones allowed, is read as it is.
    await history.add(odd.funded())
    items = await all_pages(api, "/history/users/ada%2F", limit=1)
    assert [item["wallet_id"] for item in items] == [str(odd.id)] * 2
    for path in ("a%2Fb", "a/b"):
        assert len((await get(api, f"/history/users/{path}"))["items"]) == 1


async def test_probes_and_documents(api: httpx.AsyncClient) -> None:
    assert (await api.get("/live")).status_code == 200
    ready = await api.get("/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok"})
    assert "http_request_duration_seconds" in (await api.get("/metrics")).text
    document = (await api.get("/openapi.json")).json()
    assert set(document["paths"]) == {"/history/wallets/{wallet_id}", "/history/users/{user_id}"}
    for path in document["paths"].values():
        assert set(path["get"]["responses"]) == {"200", "400", "401", "403", "422", "429", "503"}


async def test_a_history_whose_database_falls_silent_says_so_within_a_second(
    open_api: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
    linked_database_url: str,
    database_link: Proxy,
) -> None:
    async with open_api(linked_database_url) as api:
        await get(api, "/history/users/ada")
        database_link.silence()
        started = time.monotonic()
        replies = await asyncio.gather(*(api.get("/history/users/ada") for _ in range(30)))
        assert {(reply.status_code, reply.headers["Retry-After"]) for reply in replies} == {(503, "1")}
        assert (await api.get("/ready")).status_code == 503
        # Three seconds more, for a busy machine.
        assert time.monotonic() - started < INTERVAL_SECONDS + TIMEOUT_SECONDS + 3
