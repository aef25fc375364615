"""Money: minor units, exact text, fees that close to zero, shares that lose nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.money import (
    AMOUNT_MINOR_MAX,
    PPM,
    CurrencyMismatchError,
    Money,
    UnknownCurrencyError,
    exponent_of,
    fee_of,
    format_decimal,
    parse_decimal,
    register_private_coin,
    returned_fee,
    split_by_weights,
)

AMOUNTS = st.integers(0, AMOUNT_MINOR_MAX)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD", "CNY"])


@pytest.mark.parametrize(("code", "exponent"), [("USD", 2), ("CNY", 2), ("JPY", 0), ("KWD", 3)])
def test_exponents_are_those_of_iso_4217(code: str, exponent: int) -> None:
    assert exponent_of(code) == exponent


@pytest.mark.parametrize("code", ["XAU", "XTS", "usd", "US", "", "ABC", "X-NONE"])
def test_asking_for_an_unknown_currency_is_refused(code: str) -> None:
    with pytest.raises(UnknownCurrencyError):
        exponent_of(code)


def test_registering_a_private_coin_fixes_its_exponent() -> None:
    register_private_coin("X-TEST", 4)
    register_private_coin("X-TEST", 4)
    assert format_decimal(Money("X-TEST", 12345)) == "1.2345"
    with pytest.raises(UnknownCurrencyError):
        register_private_coin("X-TEST", 2)
    with pytest.raises(UnknownCurrencyError):
        register_private_coin("USD", 3)


@given(CURRENCIES, st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX))
def test_reading_what_was_written_gives_the_same(code: str, amount_minor: int) -> None:
    money = Money(code, amount_minor)
    assert parse_decimal(format_decimal(money), code) == money


@pytest.mark.parametrize(
    ("code", "minor", "text"),
    [("USD", 1230, "12.30"), ("USD", -5, "-0.05"), ("JPY", 7, "7"), ("KWD", 1, "0.001")],
)
def test_writing_has_all_minor_digits(code: str, minor: int, text: str) -> None:
    assert format_decimal(Money(code, minor)) == text
    assert str(Money(code, minor)) == f"{code} {text}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "1.",
        ".5",
        "1.234",
        "+1",
        "1e3",
        " 1",
        "1,00",
        "١",
        "1.٣",
        "--1",
        "NaN",
        "0x1",
        "1\n",
        "9" * 20,
        "9" * 5000,
    ],
)
def test_reading_anything_but_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_decimal(text, "USD")


@given(CURRENCIES, st.text(max_size=8))
def test_reading_any_text_gives_money_or_a_value_error(code: str, text: str) -> None:
    try:
        money = parse_decimal(text, code)
    except ValueError:
        return
    assert money.currency_code == code


def test_amounts_above_the_limit_are_refused() -> None:
    assert Money("USD", AMOUNT_MINOR_MAX)
    for beyond in (AMOUNT_MINOR_MAX + 1, -AMOUNT_MINOR_MAX - 1):
        with pytest.raises(OverflowError):
            Money("USD", beyond)
    with pytest.raises(OverflowError):
        Money("USD", AMOUNT_MINOR_MAX) + Money("USD", 1)


def test_combining_two_currencies_is_refused() -> None:
    assert Money("USD", 5) + Money("USD", 7) - Money("USD", 2) == Money("USD", 10)
    with pytest.raises(CurrencyMismatchError):
        Money("USD", 1) + Money("CNY", 1)
    with pytest.raises(CurrencyMismatchError):
        Money("USD", 1) - Money("CNY", 1)


@given(AMOUNTS, st.integers(0, 2 * PPM))
def test_fee_is_the_nearest_minor_unit_and_at_most_the_amount(amount: int, rate: int) -> None:
    fee = fee_of(amount, rate)
    assert 0 <= fee <= amount
    if fee < amount:
        assert 2 * abs(amount * rate - fee * PPM) <= PPM


@pytest.mark.parametrize(
    ("amount", "rate", "fee"),
    [(1000, 6000, 6), (83, 6000, 0), (84, 6000, 1), (250, 6000, 2), (0, 6000, 0), (1, PPM * 3, 1)],
)
def test_fee_rounds_half_up_once(amount: int, rate: int, fee: int) -> None:
    assert fee_of(amount, rate) == fee


def test_fee_of_less_than_nothing_is_refused() -> None:
    for amount, rate in ((-1, 1), (1, -1)):
        with pytest.raises(ValueError):
            fee_of(amount, rate)


@given(st.data())
def test_fees_returned_in_parts_sum_to_the_whole(data: st.DataObject) -> None:
    amount = data.draw(st.integers(1, AMOUNT_MINOR_MAX), label="amount")
    fee = data.draw(st.integers(0, amount), label="fee")
    before = returned = 0
    while before < amount:
        left = amount - before
        part = data.draw(st.integers(max(1, left // 4), left), label="part")
        back = returned_fee(fee, amount, before, part)
        assert 0 <= back <= min(part, fee)
        before, returned = before + part, returned + back
    assert returned == fee


@pytest.mark.parametrize(("before", "part"), [(0, 0), (0, 101), (60, 41), (0, -1)])
def test_fee_of_an_impossible_refund_is_refused(before: int, part: int) -> None:
    with pytest.raises(ValueError):
        returned_fee(6, 100, before, part)


@given(AMOUNTS, st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any))
def test_splitting_loses_nothing_and_stays_within_one_unit(amount: int, weights: list[int]) -> None:
    shares = split_by_weights(amount, weights)
    total = sum(weights)
    assert sum(shares) == amount
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * total - amount * weight) < total
        assert weight or not share


def test_splitting_gives_ties_to_the_earlier_receiver() -> None:
    assert split_by_weights(100, [1, 1, 1]) == [34, 33, 33]
    assert split_by_weights(2, [1, 1, 1]) == [1, 1, 0]
    assert split_by_weights(5, [0, 3, 1]) == [0, 4, 1]


@pytest.mark.parametrize(("amount", "weights"), [(1, []), (1, [0, 0]), (1, [2, -1]), (-1, [1])])
def test_splitting_by_impossible_weights_is_refused(amount: int, weights: list[int]) -> None:
    with pytest.raises(ValueError):
        split_by_weights(amount, weights)
