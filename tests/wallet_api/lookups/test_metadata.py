"""The transactions of a wallet by their metadata."""

from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.problems import ValidationProblem
from support.lookups import ADA, ADMIN, BOB, EVE, NOTHING, Json, found, ids, move, pages_of
from support.plans import ledger_rows_read
from wallet_api.lookups import queries
from wallet_api.lookups.metadata import LENGTH_MAX, MEMBERS_MAX, metadata_of
from wallet_api.lookups.queries import READ_VERSIONS_MAX, versions_to_read

AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]


def member(key: str, value: str) -> Json:
    return {f"metadata[{key}]": value}


@pytest.mark.parametrize(
    ("query", "members"),
    [
        ({}, {}),
        ({"metadatas": "x", "meta[a]": "x", "limit": "1"}, {}),
        ({"metadata[b]": "1", "metadata[a]": ""}, {"a": "", "b": "1"}),
        ({"metadata[]": "x"}, {"": "x"}),
        ({"metadata[a[0]]": "x", "metadata[]]": "y", "metadata[\n]": "z"}, {"\n": "z", "]": "y", "a[0]": "x"}),
        ({"metadata[é 李]": "😀"}, {"é 李": "😀"}),
        ({f"metadata[{'k' * LENGTH_MAX}]": "v" * LENGTH_MAX}, {"k" * LENGTH_MAX: "v" * LENGTH_MAX}),
    ],
)
def test_the_key_is_what_stands_in_the_brackets(query: dict[str, str], members: dict[str, str]) -> None:
    found_members = metadata_of(query)
    assert list(found_members.items()) == list(members.items())


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"metadata": "a"}, "metadata"),
        ({"metadata[a": "b"}, "metadata[a"),
        ({"metadata[a]b": "c"}, "metadata[a]b"),
        ({"metadata[a][b]": "c"}, "metadata[a][b]"),
        ({"metadata[\0]": "c"}, "metadata[\0]"),
        ({"metadata[a]": "\0"}, "metadata[a]"),
        ({"metadata[a]": "v" * (LENGTH_MAX + 1)}, "metadata[a]"),
        ({f"metadata[{'k' * (LENGTH_MAX + 1)}]": "v"}, f"metadata[{'k' * (LENGTH_MAX + 1)}]"),
        ({f"metadata[{number}]": "v" for number in range(MEMBERS_MAX + 1)}, "metadata"),
    ],
)
def test_what_is_no_member_of_metadata_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationProblem) as refusal:
        metadata_of(query)
    assert [error["field"] for error in refusal.value.errors] == [field]


async def test_a_member_of_metadata_finds_the_transactions_of_the_wallet_that_have_this_string(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    """A number, a truth value or what is in a list equals no string."""
    ada, second, bob = wallets.values()
    values: list[Any] = ["4711", 4711, 4711.0, True, None, ["4711"], {"order": "4711"}, "04711", " 4711", "true", ""]
    moved = [(await move(client, ada, bob, metadata={"order": value}))["transaction_id"] for value in values]
    await move(client, ada, bob, metadata={"Order": "4711", "other": "4711"})
    await move(client, second, ada)
    for asked, number in [("4711", 0), ("04711", 7), (" 4711", 8), ("true", 9), ("", 10)]:
        assert ids(await found(client, wallet_id=ada, **member("order", asked))) == [moved[number]]
    for asked in ("4711.0", "True", "null", "%4711", '"4711"', '["4711"]'):
        assert await found(client, wallet_id=ada, **member("order", asked)) == NOTHING
    # Both sides of a transfer read its metadata, and find it by that. Others do not.
    for caller, wallet_id, seen in [
        (ADA, ada, [moved[0]]),
        (BOB, bob, [moved[0]]),
        (ADMIN, bob, [moved[0]]),
        (ADA, second, []),
        (ADA, bob, []),
        (EVE, ada, []),
        (ADMIN, str(uuid4()), []),
    ]:
        for order in ("asc", "desc"):
            page = await found(client, caller, wallet_id=wallet_id, order=order, **member("order", "4711"))
            assert (ids(page), page["next_cursor"]) == (seen, None)


async def test_of_several_members_all_must_be_equal(client: AsyncClient, wallets: dict[str, str]) -> None:
    ada = wallets["ada"]
    members = {str(number): f"value {number}" for number in range(MEMBERS_MAX)}
    whole = (await move(client, ada, metadata={**members, "more": 1}))["transaction_id"]
    await move(client, ada, metadata={**members, "9": "another"})
    await move(client, ada, metadata=dict(list(members.items())[1:]))
    query: Json = {f"metadata[{key}]": value for key, value in members.items()}
    (item,) = (await found(client, wallet_id=ada, **query))["items"]
    assert (item["transaction_id"], item["metadata"]) == (whole, {**members, "more": 1})
    assert item == (await client.get(f"/transactions/{whole}")).json()


async def test_a_member_that_is_sent_twice_is_refused_and_the_order_of_members_does_not_matter(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    for _ in range(2):
        await move(client, wallets["ada"], metadata={"a": "1", "b": "2"})
    base = f"/transactions?wallet_id={wallets['ada']}"
    problem = assert_problem(await client.get(f"{base}&metadata[a]=1&metadata%5Ba%5D=1"), 422, "validation-error")
    assert [error["field"] for error in problem["errors"]] == ["metadata[a]"]
    first = await client.get(f"{base}&metadata[a]=1&metadata[b]=2&limit=1")
    cursor = first.json()["next_cursor"]
    assert cursor in first.headers["link"]
    followed = await client.get(first.links["next"]["url"])
    reordered = await client.get(f"{base}&metadata[b]=2&metadata[a]=1&limit=1&cursor={cursor}")
    assert followed.json() == reordered.json()
    assert len(followed.json()["items"]) == 1


async def test_a_page_reads_a_bounded_number_of_versions_and_the_pages_are_complete_without_repeats(
    client: AsyncClient, wallets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may have fewer items than its limit, or none, and a cursor."""
    monkeypatch.setattr(queries, "READ_VERSIONS_MAX", 3)
    ada = wallets["ada"]
    marked = [
        (await move(client, ada, metadata={"mark": "x"} if number in {0, 1, 2, 9} else {}))["transaction_id"]
        for number in range(11)
    ]
    due = [marked[number] for number in (0, 1, 2, 9)]
    for order, limit in product(("asc", "desc"), (1, 2, 50)):
        pages = await pages_of(client, wallet_id=ada, order=order, limit=limit, **member("mark", "x"))
        seen = [each for page in pages for each in ids(page)]
        assert seen == (due if order == "asc" else due[::-1])
        assert max(len(page["items"]) for page in pages) <= min(limit, 3)
        assert [] in map(ids, pages[:-1])
        assert len(pages) <= 13 // 3 + 1 + len(due)


@pytest.mark.parametrize("newest", [0, 1, 2, 3, READ_VERSIONS_MAX, READ_VERSIONS_MAX + 1, 3 * READ_VERSIONS_MAX + 7])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_ranges_of_a_search_have_each_version_once_and_end(order: Any, newest: int) -> None:
    after: int | None = 0 if order == "asc" else 2**63 - 1
    versions = list[int]()
    count = 0
    while after is not None:
        first, last, after = versions_to_read(order, after, newest)
        assert last - first < READ_VERSIONS_MAX
        read = range(first, last + 1)
        versions += read if order == "asc" else read[::-1]
        count += 1
    assert [version for version in versions if version > 1] == sorted(range(2, newest + 1), reverse=order == "desc")
    assert count <= max(1, newest // READ_VERSIONS_MAX + 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("after", [-(2**63) + 1, -1, 0, 1, 5, 6, 2**63 - 1])
def test_a_range_after_any_number_is_bounded_and_has_numbers_that_postgresql_takes(order: Any, after: int) -> None:
    first, last, _ = versions_to_read(order, after, 5)
    if first <= last:
        assert last - first < READ_VERSIONS_MAX
        assert -(2**63) <= first <= last <= 5


async def test_a_search_of_a_large_wallet_reads_no_more_than_its_bound(
    client: AsyncClient, wallets: dict[str, str], engine: AsyncEngine, sql: Sql
) -> None:
    """Also before PostgreSQL has statistics."""
    entries = 2 * READ_VERSIONS_MAX
    await sql(
        "INSERT INTO wallet.wallet_transactions (transaction_id, entry, wallet_id, wallet_version, type, amount_minor,"
        " currency, balance_after_minor, metadata) SELECT id, entry, $1, number * 2 + entry, 'TRANSFER',"
        " CASE entry WHEN 1 THEN 1 ELSE -1 END, 'EUR', 1, '{\"a\": \"b\"}'"
        " FROM (SELECT gen_random_uuid() AS id, number FROM generate_series(1, $2) AS number) AS ids,"
        " generate_series(1, 2) AS entry",
        UUID(wallets["bob"]),
        entries // 2,
    )
    newest = entries + 2
    await sql("UPDATE wallet.wallets SET version = $2 WHERE id = $1", UUID(wallets["bob"]), newest)
    first, last, _ = versions_to_read("desc", 2**63 - 1, newest)
    parameters = {
        "wallet_id": wallets["bob"],
        "caller_user_id": None,
        "first": first,
        "last": last,
        "metadata": '{"a": "c"}',
        "limit": 51,
    }
    async with engine.connect() as connection:
        for statement in queries.BY_METADATA.values():
            ((explained,),) = await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), parameters)
            assert ledger_rows_read(explained[0]["Plan"]) == READ_VERSIONS_MAX
    pages = await pages_of(client, wallet_id=wallets["bob"], **member("a", "c"))
    assert [page["items"] for page in pages] == [[], [], []]
