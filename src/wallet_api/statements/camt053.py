"""A statement as ISO 20022 camt.053.001.08, a bank-to-customer statement. Pure.

An id of ISO 20022 has at most 34 or 35 characters, so UUIDs are written without hyphens. Sources: the message's schema,
and the external code sets of ISO 20022 (balance types OPBD, OPAV, CLBD, CLAV; entry status BOOK).
"""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from html import escape
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from common.identifiers import new_id
from common.moments import timestamp
from common.money import to_major
from wallet_api.statements.balances import Balance, Pages, Period

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
_UNSTRUCTURED_LENGTH_MAX: Final = 140

# What XML 1.0 can't hold, not even escaped (section 2.2).
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


async def statement_camt053(period: Period, pages: Pages) -> AsyncIterator[bytes]:
    """Yield the XML of a statement, in parts. Versions that moved no money are not in it."""
    yield _head(period).encode()
    async for rows in pages:
        yield "".join(_entry(row) for row in rows if row["amount_minor"]).encode()
    yield b"</Stmt></BkToCstmrStmt></Document>"


def _head(period: Period) -> str:
    created_at = timestamp(period.read_at)
    # The same for each copy of the statement.
    statement_id = uuid5(NAMESPACE_OID, f"{period.wallet_id} {timestamp(period.start)} {timestamp(period.end)}").hex
    opening, closing = period.opening, period.closing
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<Document xmlns="{NAMESPACE}"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>{new_id().hex}</MsgId><CreDtTm>{created_at}</CreDtTm></GrpHdr>"
        f"<Stmt><Id>{statement_id}</Id><CreDtTm>{created_at}</CreDtTm>"
        f"<FrToDt><FrDtTm>{timestamp(period.start)}</FrDtTm><ToDtTm>{timestamp(period.end)}</ToDtTm></FrToDt>"
        f"<Acct>{_account(period.wallet_id.hex)}<Ccy>{closing.currency}</Ccy></Acct>"
        f"{_balance('OPBD', opening, opening.balance_minor, period.start)}"
        f"{_balance('OPAV', opening, opening.available_minor, period.start, _credit_line(opening))}"
        f"{_balance('CLBD', closing, closing.balance_minor, period.end)}"
        f"{_balance('CLAV', closing, closing.available_minor, period.end, _credit_line(closing))}"
    )


def _balance(code: str, balance: Balance, amount_minor: int, moment: datetime, credit_line: str = "") -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{credit_line}{_amount(amount_minor, balance.currency)}"
        f"<Dt><DtTm>{timestamp(moment)}</DtTm></Dt></Bal>"
    )


def _credit_line(balance: Balance) -> str:
    """Return that the overdraft limit is part of an available balance, and how much it is."""
    limit_minor, currency = balance.overdraft_limit_minor, balance.currency
    if limit_minor == 0:
        return ""
    return f'<CdtLine><Incl>true</Incl><Amt Ccy="{currency}">{to_major(limit_minor, currency)}</Amt></CdtLine>'


def _entry(row: Mapping[Any, Any]) -> str:
    amount = _amount(row["amount_minor"], row["currency"])
    booked_at = timestamp(row["created_at"])
    transaction_id = row["transaction_id"].hex
    reversal = "<RvslInd>true</RvslInd>" if row["type"] == "REVERSAL" else ""
    return (
        f"<Ntry><NtryRef>{row['wallet_version']}</NtryRef>{amount}{reversal}<Sts><Cd>BOOK</Cd></Sts>"
        f"<BookgDt><DtTm>{booked_at}</DtTm></BookgDt><ValDt><DtTm>{booked_at}</DtTm></ValDt>"
        f"<AcctSvcrRef>{transaction_id}</AcctSvcrRef><BkTxCd><Prtry><Cd>{row['type']}</Cd></Prtry></BkTxCd>"
        f"<NtryDtls><TxDtls><Refs><AcctSvcrRef>{transaction_id}</AcctSvcrRef></Refs>{amount}"
        f"{_counterparty(row)}{_remittance(row['reference'])}</TxDtls></NtryDtls></Ntry>"
    )


def _counterparty(row: Mapping[Any, Any]) -> str:
    if row["counterparty_wallet_id"] is None:
        return ""
    role = "DbtrAcct" if row["amount_minor"] > 0 else "CdtrAcct"
    return f"<RltdPties><{role}>{_account(row['counterparty_wallet_id'].hex)}</{role}></RltdPties>"


def _account(account_id: str) -> str:
    return f"<Id><Othr><Id>{account_id}</Id></Othr></Id>"


def _remittance(reference: str | None) -> str:
    """Return the reference in parts that are no longer than the schema allows."""
    if reference is None:
        return ""
    text = _NOT_XML.sub("\ufffd", reference)
    starts = range(0, len(text), _UNSTRUCTURED_LENGTH_MAX)
    parts = (escape(text[start : start + _UNSTRUCTURED_LENGTH_MAX], quote=False) for start in starts)
    return f"<RmtInf>{''.join(f'<Ustrd>{part}</Ustrd>' for part in parts)}</RmtInf>"


def _amount(amount_minor: int, currency: str) -> str:
    """Return the amount without its sign, and the indicator that has the sign: zero is a credit."""
    indicator = "DBIT" if amount_minor < 0 else "CRDT"
    return f'<Amt Ccy="{currency}">{to_major(abs(amount_minor), currency)}</Amt><CdtDbtInd>{indicator}</CdtDbtInd>'
