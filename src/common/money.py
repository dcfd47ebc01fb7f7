"""Amounts: decimal strings in major units in HTTP and in events, whole minor units everywhere else.

A currency's exponent (ISO 4217) says how many decimals an amount may have: JPY 0, EUR 2, BHD 3.
"""

import re
from functools import cache

from iso4217 import Currency

MINOR_MAX = 2**63 - 1
"""The largest PostgreSQL `BIGINT`, and so the largest amount and balance."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_LENGTH_MAX = 400


class AmountError(ValueError):
    """The text isn't an amount of that currency; the message says why."""


class UnknownCurrencyError(ValueError):
    """The code is no ISO 4217 currency with minor units."""


@cache
def exponent_of(currency: str) -> int:
    """Return how many decimals amounts of `currency` have.

    Raises:
        UnknownCurrencyError: no such code, or one without minor units (XAU, XXX, ...).
    """
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        exponent = None
    if exponent is None:
        raise UnknownCurrencyError("must be an ISO 4217 currency code in capitals, such as EUR")
    return exponent


def to_minor(amount: str, currency: str) -> int:
    """Convert major units (`"50.00"`) to minor units (5000).

    Raises:
        AmountError: not a plain positive decimal, more decimals than the currency has, or more than fits.
        UnknownCurrencyError: no such currency.
    """
    minor = to_minor_or_zero(amount, currency)
    if minor == 0:
        raise AmountError("must be more than zero")
    return minor


def to_minor_or_zero(amount: str, currency: str) -> int:
    """Convert an amount in major units to minor units, as `to_minor` does, but accept zero.

    Raises:
        AmountError: not a plain decimal, more decimals than the currency has, or more than fits.
        UnknownCurrencyError: no such currency.
    """
    exponent = exponent_of(currency)
    match = _DECIMAL.fullmatch(amount) if len(amount) <= _LENGTH_MAX else None
    if match is None:
        raise AmountError('must be a plain decimal number such as "50.00"')
    whole, decimals = match[1], match[2] or ""
    if len(decimals) > exponent:
        raise AmountError(f"{currency} amounts have at most {exponent} decimals")
    minor = int(whole + decimals.ljust(exponent, "0"))
    if minor > MINOR_MAX:
        raise AmountError(f"must be at most {to_major(MINOR_MAX, currency)}")
    return minor


def balance_to_minor(balance: str, currency: str) -> int:
    """Convert a balance in major units to minor units. An overdrawn wallet's is below zero (`"-5.00"`).

    Raises:
        AmountError: not a plain decimal, more decimals than the currency has, or more than fits.
        UnknownCurrencyError: no such currency.
    """
    if balance.startswith("-"):
        return -to_minor_or_zero(balance[1:], currency)
    return to_minor_or_zero(balance, currency)


def without_zeros(amount: str) -> str:
    """Return a plain decimal without trailing zeros (`"50.00"` as `"50"`), and any other text unchanged."""
    match = _DECIMAL.fullmatch(amount) if len(amount) <= _LENGTH_MAX else None
    return amount.rstrip("0").rstrip(".") if match and match[2] else amount


def to_major(amount_minor: int, currency: str) -> str:
    """Convert minor units (-5000) to a decimal string in major units (`"-50.00"`)."""
    if amount_minor == 0:
        return _zero(currency)
    exponent = exponent_of(currency)
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    sign = "-" if amount_minor < 0 else ""
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"


@cache
def _zero(currency: str) -> str:
    """Return zero in major units: it is often asked for, as what is held."""
    exponent = exponent_of(currency)
    return f"0.{'0' * exponent}" if exponent else "0"
