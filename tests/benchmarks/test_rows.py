"""What the benchmark's SQL writes is what the wallet API writes."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from benchmarks import queries
from benchmarks.load import pgbench
from common.identifiers import lane_of
from common.settings import PipelineSettings
from support.applications import client_of
from support.databases import run_sql
from wallet_api.app import create_app
from wallet_api.idempotency.idempotency import request_hash
from wallet_api.settings import WalletApiSettings
from walletctl.verify.audit import audit

WALLETS, BALANCE_MINOR = 3, 100_000
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

LEDGER = "SELECT * FROM wallet.wallet_transactions ORDER BY type, entry"
OUTBOX = "SELECT * FROM wallet.outbox"
KEYS = """
    SELECT length(request_hash) AS hash_bytes, reply_status, reply_headers, convert_from(reply_body, 'UTF8') AS body
    FROM wallet.idempotency_keys
"""


def shape(row: asyncpg.Record) -> tuple[tuple[str, str], ...]:
    """Return the row's columns with every number and every id made the same."""
    return tuple((name, re.sub(r"\d+", "0", UUID.sub("ID", str(value)))) for name, value in row.items())


async def shapes(url: str, query: str, where: Callable[[asyncpg.Record], bool] = lambda _: True) -> set[Any]:
    connection = await asyncpg.connect(url)
    try:
        return {shape(row) for row in await connection.fetch(query) if where(row)}
    finally:
        await connection.close()


@pytest.fixture
def another_url(new_database: Callable[[str | None], str], template: str) -> str:
    """One more fresh, migrated database."""
    return new_database(template)


@pytest.fixture
async def written_by_api(another_url: str) -> str:
    """A database in which the API made wallets, funded them and moved money between them."""
    app = create_app(WalletApiSettings(auth="none", database_url=another_url, log_level="warning"))
    async with client_of(app) as api:
        ids = []
        for number in range(2):
            made = await api.post("/wallets", json={"user_id": f"user-{number}", "currency": "EUR"})
            ids.append(made.json()["id"])
            await api.post(f"/wallets/{ids[-1]}/fund", json={"amount": "10.00"})
        body = {"to_wallet_id": ids[1], "amount": "0.01"}
        sent = await api.post(f"/wallets/{ids[0]}/transfer", json=body, headers={"Idempotency-Key": str(uuid4())})
        assert sent.status_code == 200, sent.text
    return another_url


@pytest.fixture
async def bench_url(database_url: str) -> str:
    """A database with the benchmark's wallets, of which each has sent once."""
    await run_sql(
        database_url,
        queries.BENCH_SCHEMA,
        f"CALL bench.make_wallets({WALLETS}, {BALANCE_MINOR})",
        f"CALL bench.make_rounds({WALLETS}, {BALANCE_MINOR}, 0, 1)",
    )
    return database_url


def settings(url: str, servers: str, topic: str) -> PipelineSettings:
    return PipelineSettings(
        database_url=url, history_database_url=url, kafka_bootstrap_servers=servers, kafka_topic=topic
    )


async def test_wallets_and_transfers_made_at_once_are_those_that_the_api_would_have_made(
    written_by_api: str, bench_url: str, kafka_bootstrap_servers: str, topic: str
) -> None:
    assert await shapes(bench_url, LEDGER) == await shapes(written_by_api, LEDGER)
    assert await shapes(bench_url, OUTBOX) == {
        tuple((name, "None" if name == "headers" else value) for name, value in row)
        for row in await shapes(written_by_api, OUTBOX)
    }
    report = await audit(settings(bench_url, kafka_bootstrap_servers, topic))
    assert report.ok, report.differences
    assert report.horizon.pending == 3 * WALLETS


@pytest.mark.parametrize("script", [pgbench.BY_STATEMENTS, pgbench.BY_FUNCTION], ids=lambda script: script.stem)
async def test_a_transfer_by_pgbench_writes_the_rows_of_a_transfer_over_http(
    script: Any, written_by_api: str, bench_url: str, kafka_bootstrap_servers: str, topic: str
) -> None:
    def is_transfer(row: asyncpg.Record) -> bool:
        return row.get("type", row.get("event_type")) in {"TRANSFER", "TRANSFER_DONE"}

    started = pgbench.start(bench_url, script, clients=2, wallets=WALLETS, senders=WALLETS, limit=("-t", 5))
    pgbench.finish(started)

    assert await shapes(bench_url, KEYS) == await shapes(written_by_api, KEYS)
    for query in (LEDGER, OUTBOX):
        assert await shapes(bench_url, query, is_transfer) == await shapes(written_by_api, query, is_transfer)
    report = await audit(settings(bench_url, kafka_bootstrap_servers, topic))
    assert report.ok, report.differences
    assert report.horizon.pending == 3 * WALLETS + 10


async def test_what_the_sql_computes_is_what_the_api_computes(bench_url: str) -> None:
    connection = await asyncpg.connect(bench_url)
    sender, receiver = [row["id"] for row in await connection.fetch("SELECT id FROM wallet.wallets LIMIT 2")]
    lanes = await connection.fetch("SELECT id, bench.lane(id) AS lane FROM wallet.wallets")
    digest = await connection.fetchval("SELECT bench.request_hash($1, $2, 1)", sender, receiver)
    await connection.close()

    body: dict[str, Any] = {
        "metadata": {},
        "amount": "0.01",
        "currency": None,
        "reference": None,
        "to_wallet_id": str(receiver),
    }
    assert digest == request_hash("POST", f"/wallets/{sender}/transfer", body)
    assert all(row["lane"] == lane_of(row["id"]) for row in lanes)
