"""An audit of what came after the last clean one, and when it must compare everything."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.settings import PipelineSettings
from common.tables.roles import Role
from support.pipeline_acts import audit, begin_epoch, rebuild
from support.pipelines import Wallets, api_engine, move_money, new_wallets, run_consumer, run_relay, tamper
from support.roles import ROLES
from walletctl.verify import horizons
from walletctl.verify.audit import BALANCES, HISTORY, OUTBOX, PROGRESS, REVERSALS, SUMS, TOPIC, VERSIONS
from walletctl.verify.report import Report

NEWEST = """
    wallet_id = (SELECT id FROM wallet.wallets WHERE external_id = 'hot')
    AND wallet_version = (SELECT max(version) FROM wallet.wallets WHERE external_id = 'hot')
"""


@pytest.fixture(autouse=True)
def nothing_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a horizon lie at its snapshot: no transaction of these tests is open meanwhile."""
    monkeypatch.setattr(horizons, "UNCOMMITTED_SECONDS_MAX", 0.0)


@pytest.fixture
async def api(fresh: PipelineSettings) -> AsyncIterator[AsyncEngine]:
    async with api_engine(fresh.database_url) as engine:
        yield engine


@pytest.fixture
async def wallets(fresh: PipelineSettings, api: AsyncEngine) -> Wallets:
    """Wallets that have moved money, and everything is published, applied and audited."""
    wallets = await new_wallets(api)
    await _move(fresh, api, wallets)
    assert (await audit(fresh)).clean_up_to is not None
    return wallets


async def _move(fresh: PipelineSettings, api: AsyncEngine, wallets: Wallets) -> None:
    await move_money(api, wallets, 1)
    await run_relay(fresh)
    await run_consumer(fresh)


async def _stored(engine: AsyncEngine) -> datetime:
    async with engine.connect() as connection:
        stored: datetime = (await connection.execute(text("SELECT up_to FROM wallet.verified_horizons"))).scalar_one()
        return stored


def _compared(report: Report) -> dict[str, int]:
    return {check.name: check.compared for check in report.checks}


def _broken(report: Report) -> set[str]:
    return {check.name for check in report.checks if check.difference_count}


async def test_only_what_came_after_the_last_clean_run_is_compared(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine, wallets: Wallets
) -> None:
    horizon = await _stored(engine)
    await _move(fresh, api, wallets)
    report = await audit(fresh, since_last=True)
    assert (report.differences, report.since, report.why_all) == ([], horizon, None)
    everything, after = _compared(await audit(fresh)), _compared(report)
    # The first movements are as many as the second, and the five wallets were created before.
    for name in (SUMS, TOPIC, OUTBOX, VERSIONS, HISTORY):
        created = 0 if name == SUMS else 5
        assert after[name] == (everything[name] - created) / 2
    assert await _stored(engine) > horizon


async def test_clean_runs_follow_one_another(fresh: PipelineSettings, api: AsyncEngine, wallets: Wallets) -> None:
    first = await audit(fresh, since_last=True)
    assert _compared(first)[VERSIONS] == 0
    await _move(fresh, api, wallets)
    second = await audit(fresh, since_last=True)
    assert second.since == first.clean_up_to
    assert _compared(second)[VERSIONS] > 0


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            f"UPDATE wallet.wallet_transactions SET balance_after_minor = balance_after_minor + 1 WHERE {NEWEST}",
            {VERSIONS, OUTBOX, HISTORY},
        ),
        (f"DELETE FROM wallet.wallet_transactions WHERE {NEWEST}", {BALANCES, SUMS, VERSIONS, OUTBOX, HISTORY}),
        ("UPDATE wallet.wallets SET balance_minor = balance_minor + 1 WHERE external_id = 'hot'", {BALANCES}),
        ("DELETE FROM wallet.outbox WHERE id = (SELECT max(id) FROM wallet.outbox)", {OUTBOX}),
        (
            """
            UPDATE wallet.outbox SET payload = (payload::text || ' ')::json
            WHERE id = (SELECT max(id) FROM wallet.outbox)
            """,
            {TOPIC, HISTORY},
        ),
        (f"DELETE FROM history.transaction_events WHERE {NEWEST}", {HISTORY, PROGRESS}),
    ],
)
async def test_what_is_wrong_after_the_horizon_is_named_and_the_horizon_stays(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine, wallets: Wallets, statement: str, expected: set[str]
) -> None:
    horizon = await _stored(engine)
    await _move(fresh, api, wallets)
    await tamper(fresh.database_url, statement)
    for since_last in (True, False):
        report = await audit(fresh, since_last=since_last)
        assert _broken(report) >= expected
        assert report.clean_up_to is None
        assert await _stored(engine) == horizon


async def test_an_older_row_that_was_changed_is_seen_by_a_full_run_only(settings: PipelineSettings) -> None:
    await audit(settings)
    await tamper(settings.database_url, "UPDATE history.transaction_events SET user_id = 'eve'")
    assert (await audit(settings, since_last=True)).ok
    assert _broken(await audit(settings)) == {HISTORY}


async def test_reversals_of_before_the_horizon_are_summed_too(settings: PipelineSettings) -> None:
    await audit(settings)
    link = "UPDATE wallet.wallet_transactions SET reverses_transaction_id = transaction_id WHERE type = 'REVERSAL'"
    await tamper(settings.database_url, link)
    assert _broken(await audit(settings, since_last=True)) == {REVERSALS}
    assert _broken(await audit(settings)) == {REVERSALS, OUTBOX}


async def test_an_event_on_its_way_lies_after_the_horizon(
    fresh: PipelineSettings, api: AsyncEngine, wallets: Wallets
) -> None:
    await move_money(api, wallets, 1)
    pending = await audit(fresh)
    assert pending.ok
    assert pending.horizon.on_their_way > 0
    await run_relay(fresh)
    await run_consumer(fresh)
    await tamper(fresh.database_url, f"UPDATE history.transaction_events SET user_id = 'eve' WHERE {NEWEST}")
    assert _broken(await audit(fresh, since_last=True)) == {HISTORY}


async def _begin_epoch(settings: PipelineSettings) -> None:
    await begin_epoch(settings)
    await rebuild(settings)


async def _lose_an_older_row(settings: PipelineSettings) -> None:
    await tamper(settings.database_url, "DELETE FROM history.transaction_events WHERE wallet_version = 1")


async def _forget_the_horizon(settings: PipelineSettings) -> None:
    await tamper(settings.database_url, "DELETE FROM wallet.verified_horizons")


async def _restore_elsewhere(settings: PipelineSettings) -> None:
    await tamper(
        settings.database_url,
        'UPDATE wallet.verified_horizons SET identity = identity || \'{"the wallet database": "another"}\'',
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_forget_the_horizon, "no clean run is stored"),
        (_begin_epoch, "the history's database or table, the source epoch"),
        (rebuild, "the history's database or table"),
        (_restore_elsewhere, "the wallet database"),
        (_lose_an_older_row, "history.transaction_events had"),
    ],
)
async def test_everything_is_compared_if_the_horizon_may_not_hold(
    settings: PipelineSettings, change: Callable[[PipelineSettings], Awaitable[Any]], why: str
) -> None:
    everything = _compared(await audit(settings))[OUTBOX]
    await change(settings)
    report = await audit(settings, since_last=True)
    assert report.why_all is not None
    assert why in report.why_all
    assert report.since is None
    assert _compared(report)[OUTBOX] == everything


async def test_a_login_that_may_not_store_the_horizon_still_audits(settings: PipelineSettings) -> None:
    await tamper(settings.database_url, f"REVOKE INSERT ON wallet.verified_horizons FROM {ROLES.names[Role.AUDITOR]}")
    report = await audit(settings)
    assert (report.ok, report.clean_up_to) == (True, None)
