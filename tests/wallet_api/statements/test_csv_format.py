import asyncio
import csv
import io

import pytest
from hypothesis import given

from common.money import balance_to_minor, to_major
from support.statements import Rows, period_of, rows_of, statements, written
from wallet_api.statements.balances import Period
from wallet_api.statements.csv_format import COLUMNS, statement_csv


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


def minor(text: str, currency: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * balance_to_minor(text.removeprefix("-"), currency)


@given(statements())
def test_the_opening_balance_and_the_amounts_sum_to_the_closing_balance(statement: tuple[Period, Rows]) -> None:
    period, rows = statement
    lines = read(asyncio.run(written(statement_csv, period, rows)))
    assert [line["type"] for line in lines] == ["OPENING", *(row["type"] for row in rows), "CLOSING"]
    currency = period.closing.currency
    balance = minor(lines[0]["balance"], currency)
    for line in lines[1:-1]:
        balance += minor(line["amount"], currency)
        assert minor(line["balance"], currency) == balance
    assert lines[-1]["balance"] == to_major(balance, currency)
    held = [period.opening.held_minor, *(row["held_after_minor"] or 0 for row in rows), period.closing.held_minor]
    assert [minor(line["held"], currency) for line in lines] == held
    limit_minor = period.opening.overdraft_limit_minor
    for line, limit in zip(lines, [None, *(row["overdraft_limit"] for row in rows), None], strict=True):
        limit_minor = limit_minor if limit is None else minor(limit, currency)
        own_minor = minor(line["balance"], currency) - minor(line["held"], currency)
        assert minor(line["available"], currency) == own_minor + limit_minor
    assert [int(line["version"]) for line in lines[:-1]] == list(range(4, 5 + len(rows)))


@given(statements())
def test_each_line_has_each_field_and_ends_with_crlf(statement: tuple[Period, Rows]) -> None:
    period, rows = statement
    content = asyncio.run(written(statement_csv, period, rows)).decode()
    assert content.startswith(",".join(COLUMNS) + "\r\n")
    assert content.endswith("\r\n")
    lines = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert {len(line) for line in lines} == {len(COLUMNS)}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
async def test_a_spreadsheet_takes_no_text_of_a_client_for_a_formula(start: str) -> None:
    references = [f'{start}HYPERLINK("http://x","y")', f"a{start}b", None]
    rows = rows_of(100, [200, 300, 400], references)
    lines = read(await written(statement_csv, period_of(100, rows), rows))
    for name in ("reference", "external_id"):
        assert [line[name] for line in lines[1:-1]] == [f"'{references[0]}", references[1], ""]
