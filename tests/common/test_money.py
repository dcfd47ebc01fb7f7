import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from iso4217 import Currency

from common.money import (
    MINOR_MAX,
    AmountError,
    UnknownCurrencyError,
    balance_to_minor,
    exponent_of,
    to_major,
    to_minor,
    to_minor_or_zero,
    without_zeros,
)

WITHOUT_MINOR_UNITS = sorted(item.value for item in Currency if item.exponent is None)
CURRENCIES = st.sampled_from(sorted(item.value for item in Currency if item.exponent is not None))
MINOR = st.integers(1, MINOR_MAX)


@given(CURRENCIES, MINOR)
@example("EUR", MINOR_MAX)
@example("EUR", 2**53 + 1)
@example("JPY", 1)
@example("BHD", 1)
def test_every_amount_of_every_currency_survives_the_round_trip(currency: str, minor: int) -> None:
    assert to_minor(to_major(minor, currency), currency) == minor


@given(CURRENCIES, st.integers())
@example("EUR", -5)
@example("EUR", 0)
@example("JPY", 0)
def test_major_units_are_the_exact_quotient_with_all_the_currencys_decimals(currency: str, minor: int) -> None:
    major = to_major(minor, currency)
    assert Fraction(major) * 10 ** exponent_of(currency) == minor
    assert len(major.partition(".")[2]) == exponent_of(currency)


@given(
    CURRENCIES,
    st.from_regex(r"(0|[1-9][0-9]{0,25})(\.[0-9]{1,5})?", fullmatch=True, alphabet=st.characters(codec="ascii")),
)
@example("EUR", "0.1")
@example("EUR", "9007199254740993")
@example("EUR", "92233720368547758.08")
@example("BHD", "1.0000")
@example("JPY", "1.0")
def test_a_plain_decimal_means_its_exact_value_or_is_refused_for_a_stated_reason(currency: str, amount: str) -> None:
    value = Fraction(amount) * 10 ** exponent_of(currency)
    fits = len(amount.partition(".")[2]) <= exponent_of(currency) and 0 < value <= MINOR_MAX
    if fits:
        assert to_minor(amount, currency) == value
    else:
        with pytest.raises(AmountError, match=r"decimals|more than zero|at most"):
            to_minor(amount, currency)


@given(st.text() | st.from_regex(r"[-+ 0-9.,eE_xfnai]*", fullmatch=True))
@example("")
@example("-1")
@example("+1")
@example(" 1")
@example("1 ")
@example("1\n")
@example("1.")
@example(".5")
@example("01")
@example("00.50")
@example("1e2")
@example("1_000")
@example("1,00")
@example("0x10")
@example("NaN")
@example("Infinity")
@example("\uff11\uff12")
@example("\u0663")
@example("1.\u0663")
@example("9" * 10_000)
@example("0." + "0" * 10_000 + "1")
def test_everything_else_is_refused_as_an_amount_and_never_raises_another_error(amount: str) -> None:
    is_plain = re.fullmatch(r"(0|[1-9][0-9]{0,16})(\.[0-9]{1,2})?", amount) and 0 < Fraction(amount) * 100 <= MINOR_MAX
    try:
        minor = to_minor(amount, "EUR")
    except AmountError:
        assert not is_plain
    else:
        assert is_plain
        assert minor == Fraction(amount) * 100


def test_zero_is_a_balance_but_not_an_amount() -> None:
    with pytest.raises(AmountError, match="more than zero"):
        to_minor("0.00", "EUR")
    assert balance_to_minor("0.00", "EUR") == to_minor_or_zero("0.00", "EUR") == 0


def test_a_balance_may_be_below_zero_but_an_amount_may_not() -> None:
    assert balance_to_minor("-0.05", "EUR") == -5
    for convert in (to_minor, to_minor_or_zero):
        with pytest.raises(AmountError, match="plain decimal"):
            convert("-0.05", "EUR")
    with pytest.raises(AmountError, match="plain decimal"):
        balance_to_minor("--5", "EUR")


def test_the_message_for_an_amount_past_the_limit_names_the_limit() -> None:
    with pytest.raises(AmountError, match=re.escape("at most 92233720368547758.07")):
        to_minor("92233720368547758.08", "EUR")


@pytest.mark.parametrize(("currency", "exponent"), [("JPY", 0), ("EUR", 2), ("BHD", 3), ("CLF", 4)])
def test_the_exponent_is_that_of_iso_4217(currency: str, exponent: int) -> None:
    assert exponent_of(currency) == exponent


@pytest.mark.parametrize("code", ["", "eur", "Eur", "EURO", "EU", "€", "978", " EUR", "EUR\n", *WITHOUT_MINOR_UNITS])
def test_a_code_that_is_no_currency_with_minor_units_is_refused(code: str) -> None:
    with pytest.raises(UnknownCurrencyError):
        exponent_of(code)


@given(st.text())
def test_any_text_is_a_currency_of_three_capitals_or_refused(code: str) -> None:
    try:
        exponent_of(code)
    except UnknownCurrencyError:
        return
    assert re.fullmatch("[A-Z]{3}", code)


def test_every_currency_passes_the_tables_check() -> None:
    for item in Currency:
        if item.exponent is not None:
            assert re.fullmatch("[A-Z]{3}", item.value)


@given(CURRENCIES, MINOR, st.integers(0, 4))
def test_an_amount_without_its_zeros_is_the_same_amount(currency: str, minor: int, zeros: int) -> None:
    amount = to_major(minor, currency)
    assert to_minor(without_zeros(amount), currency) == minor
    longer = (amount if "." in amount else amount + ".") + "0" * zeros
    assert longer.endswith(".") or without_zeros(longer) == without_zeros(amount)


@given(st.text())
@example("10")
@example("1.")
@example("1e10")
@example(".0")
@example("01.0")
@example("-1.0")
def test_a_text_that_is_not_a_plain_decimal_keeps_its_zeros(text: str) -> None:
    if not re.fullmatch(r"(0|[1-9][0-9]*)\.[0-9]+", text):
        assert without_zeros(text) == text
