import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import typer
from sqlalchemy import text

from support.command_lines import WalletCtl, printed
from support.outboxes import Outbox
from walletctl.console import Exit
from walletctl.times import parse_time


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-25T23:30:00+02:00", datetime(2026, 11, 25, 21, 30, tzinfo=UTC)),
        ("2026-11-25T23:30:00-02:00", datetime(2026, 11, 26, 1, 30, tzinfo=UTC)),
        ("2026-11-25T23:30:00Z", datetime(2026, 11, 25, 23, 30, tzinfo=UTC)),
        ("2026-11-25 23:30", datetime(2026, 11, 25, 23, 30, tzinfo=UTC)),
        ("2026-11-25T23:30:00.250+05:30", datetime(2026, 11, 25, 18, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 25, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_a_time_keeps_its_offset_and_is_utc_without_one(said: str, meant: datetime) -> None:
    assert parse_time(said) == meant
    assert parse_time(said).tzinfo is UTC


@pytest.mark.parametrize(
    "said",
    ["", "yesterday", "2026-13-01", "2026-11-25T25:00", "0001-01-01T00:00+01:00", "9999-12-31T23:00-02:00", "1e9"],
)
def test_what_is_no_time_is_refused_with_its_name(said: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(repr(said))):
        parse_time(said)


@pytest.mark.parametrize("command", [["list"], ["replay", "--dry-run"]], ids=" ".join)
async def test_every_command_that_takes_a_time_converts_its_offset(
    operator_url: str, outbox: Outbox, walletctl: WalletCtl, command: list[str]
) -> None:
    """Three rows, at 21:00, 22:00 and 23:00 UTC; from 23:30 at +02:00 on there are two, and before it is one."""
    await outbox.write(uuid4(), 3)
    async with outbox.engine.begin() as connection:
        await connection.execute(
            text("""
                UPDATE wallet.outbox SET published_at = now(), kafka_partition = 0, kafka_offset = id,
                    created_at = timestamptz '2026-11-25 20:00Z' + interval '1 hour' * row_number
                FROM (SELECT id AS row_id, row_number() OVER (ORDER BY id) FROM wallet.outbox) AS numbered
                WHERE id = row_id
            """)
        )

    def count(*bounds: str) -> int:
        done = walletctl("outbox", *command, "--json", *bounds, DATABASE_URL=operator_url)
        assert done.returncode == Exit.OK
        found = printed(done)
        return len(found["items"]) if "items" in found else int(found["matched"])

    assert count("--from", "2026-11-25T23:30:00+02:00") == 2
    assert count("--to", "2026-11-25T23:30:00+02:00") == 1
    assert count("--from", "0001-01-01", "--to", "9999-12-31T23:59:59.999999") == 3
