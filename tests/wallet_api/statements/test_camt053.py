"""A statement as camt.053.001.08 is valid by the message's schema, and says what the statement says.

`camt.053.001.08.xsd` is the schema as ISO 20022 publishes it.
"""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from lxml import etree  # type: ignore[import-untyped]

from common.money import to_major
from support.statements import OTHER, WALLET, Rows, period_of, rows_of, statements, written
from wallet_api.statements.balances import Period
from wallet_api.statements.camt053 import NAMESPACE, statement_camt053

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("camt.053.001.08.xsd")))
NAMES = {"c": NAMESPACE}


async def valid(period: Period, rows: Rows) -> Any:
    """Write the statement, check it against the schema, and return its element Stmt."""
    document = etree.fromstring(await written(statement_camt053, period, rows))
    SCHEMA.assertValid(document)
    (found,) = document.iterfind(".//c:Stmt", NAMES)
    return found


def texts(element: Any, path: str) -> list[str]:
    return [found.text or "" for found in element.iterfind("/".join(f"c:{name}" for name in path.split("/")), NAMES)]


def amounts(element: Any, path: str) -> list[Decimal]:
    """Return the amounts of the elements, below zero where they are debits."""
    prefix = f"{path}/"
    signs = {"CRDT": 1, "DBIT": -1}
    pairs = zip(texts(element, f"{prefix}Amt"), texts(element, f"{prefix}CdtDbtInd"), strict=True)
    return [signs[indicator] * Decimal(amount) for amount, indicator in pairs]


@given(statements())
def test_each_statement_is_valid_and_its_opening_balance_and_entries_sum_to_its_closing_balance(
    statement: tuple[Period, Rows],
) -> None:
    period, rows = statement
    found = asyncio.run(valid(period, rows))
    assert texts(found, "Bal/Tp/CdOrPrtry/Cd") == ["OPBD", "OPAV", "CLBD", "CLAV"]
    opening, opening_available, closing, closing_available = amounts(found, "Bal")
    assert opening + sum(amounts(found, "Ntry")) == closing
    currency = period.closing.currency
    assert closing == Decimal(to_major(period.closing.balance_minor, currency))
    for booked, available, balance in [
        (opening, opening_available, period.opening),
        (closing, closing_available, period.closing),
    ]:
        not_own = balance.held_minor - balance.overdraft_limit_minor
        assert booked - available == Decimal(to_major(not_own, currency))
    limits_minor = [balance.overdraft_limit_minor for balance in (period.opening, period.closing)]
    expected = [to_major(limit_minor, currency) for limit_minor in limits_minor if limit_minor]
    assert texts(found, "Bal/CdtLine/Amt") == expected
    assert texts(found, "Bal/CdtLine/Incl") == ["true"] * len(expected)
    assert texts(found, "Ntry/NtryRef") == [str(row["wallet_version"]) for row in rows]
    assert texts(found, "Ntry/AcctSvcrRef") == [row["transaction_id"].hex for row in rows]


async def test_an_entry_names_the_account_on_its_other_side_by_its_role() -> None:
    rows = rows_of(0, [500, 200, 300], [None, None, "ab"])
    found = await valid(period_of(0, rows), rows)
    entries = found.findall("c:Ntry", NAMES)
    parties = "NtryDtls/TxDtls/RltdPties"
    assert texts(entries[0], f"{parties}/DbtrAcct/Id/Othr/Id") == [OTHER.hex]
    assert texts(entries[1], f"{parties}/CdtrAcct/Id/Othr/Id") == [OTHER.hex]
    # Its other side is the world account.
    assert texts(entries[2], parties) == []
    assert texts(found, "Acct/Id/Othr/Id") == [WALLET.hex]


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("rent & <b>food</b>", ["rent & <b>food</b>"]),
        ("]]>&amp;", ["]]>&amp;"]),
        ("x" * 255, ["x" * 140, "x" * 115]),
        ("&" * 141, ["&" * 140, "&"]),
        ("a\x01b\x1f\ufffe", ["a\ufffdb\ufffd\ufffd"]),
        ("\U0001f600 李", ["\U0001f600 李"]),
    ],
)
async def test_a_reference_is_the_remittance_information_whatever_it_holds(reference: str, parts: list[str]) -> None:
    rows = rows_of(0, [100], [reference])
    found = await valid(period_of(0, rows), rows)
    assert texts(found, "Ntry/NtryDtls/TxDtls/RmtInf/Ustrd") == parts


async def test_an_entry_of_a_reversal_says_so() -> None:
    first, second = rows_of(0, [500, 200], [None, None])
    rows = [first, {**second, "type": "REVERSAL"}]
    found = await valid(period_of(0, rows), rows)
    assert [texts(entry, "RvslInd") for entry in found.findall("c:Ntry", NAMES)] == [[], ["true"]]


async def test_what_moved_no_money_is_no_entry() -> None:
    rows = rows_of(100, [100, 200], [None, None])
    found = await valid(period_of(100, rows), rows)
    assert texts(found, "Ntry/NtryRef") == ["6"]


async def test_a_statement_keeps_its_id_when_it_is_made_again_and_a_message_does_not() -> None:
    made = [etree.fromstring(await written(statement_camt053, period_of(0, []), [])) for _ in range(2)]
    assert len({document.findtext(".//c:Stmt/c:Id", namespaces=NAMES) for document in made}) == 1
    assert len({document.findtext(".//c:MsgId", namespaces=NAMES) for document in made}) == 2
