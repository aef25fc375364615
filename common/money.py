"""Money: whole minor units, a registry of currencies, and the only ways to round.

Rules are fixed for ever (docs/money-flows.md): amounts are integers up to 10^15, rates are whole
parts per million, a fee rounds half-up once and never exceeds its amount, shares go by largest
remainder. There is no float in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import iso4217

AMOUNT_MINOR_MAX: Final = 10**15
"""Largest amount of one movement, in minor units, either sign."""

PPM: Final = 1_000_000
"""Rates are parts per million: 6,000 is 0.60 %."""

_PRIVATE_COINS: dict[str, int] = {}


class UnknownCurrencyError(ValueError):
    """No currency of the registry has this code."""


class CurrencyMismatchError(ValueError):
    """Two amounts of different currencies were to be combined."""


def register_private_coin(code: str, exponent: int) -> None:
    """Add a private coin: `code` begins with `X-`, `exponent` is its number of minor digits."""
    if not code.startswith("X-") or _PRIVATE_COINS.get(code, exponent) != exponent:
        raise UnknownCurrencyError(f"{code} cannot be registered with exponent {exponent}")
    _PRIVATE_COINS[code] = exponent


@lru_cache(maxsize=512)
def _iso_exponent(code: str) -> int | None:
    try:
        exponent = iso4217.Currency(code).exponent
    except ValueError:
        return None
    return None if exponent is None else int(exponent)


def exponent_of(code: str) -> int:
    """Return how many minor digits a currency has: 2 for USD, 0 for JPY.

    Source: ISO 4217, and the installation's own `X-` coins. Raises UnknownCurrencyError, also for
    codes without a minor unit (gold, test codes).
    """
    exponent = _PRIVATE_COINS.get(code)
    if exponent is None:
        exponent = _iso_exponent(code)
    if exponent is None:
        raise UnknownCurrencyError(code)
    return exponent


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount of one currency in minor units."""

    currency_code: str
    amount_minor: int

    def __post_init__(self) -> None:
        if abs(self.amount_minor) > AMOUNT_MINOR_MAX:
            raise OverflowError("amount above 10^15 minor units")

    def _same(self, other: Money) -> None:
        if self.currency_code != other.currency_code:
            raise CurrencyMismatchError(f"{self.currency_code} and {other.currency_code}")

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.currency_code, self.amount_minor + other.amount_minor)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.currency_code, self.amount_minor - other.amount_minor)

    def __str__(self) -> str:
        return f"{self.currency_code} {format_decimal(self)}"


def format_decimal(money: Money) -> str:
    """Return the amount as a plain decimal in major units: `12.30` for 1230 minor units of USD."""
    exponent = exponent_of(money.currency_code)
    sign = "-" if money.amount_minor < 0 else ""
    digits = str(abs(money.amount_minor)).rjust(exponent + 1, "0")
    return sign + (digits if exponent == 0 else f"{digits[:-exponent]}.{digits[-exponent:]}")


def parse_decimal(text: str, currency_code: str) -> Money:
    """Return the money that a plain decimal in major units stands for.

    Raises ValueError for anything but digits with at most the currency's number of decimals, and
    for more than 10^15 minor units; never rounds.
    """
    exponent = exponent_of(currency_code)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    whole, point, fraction = digits.partition(".")
    plain = whole.isascii() and whole.isdigit() and (not point or fraction.isdigit())
    if not plain or not fraction.isascii() or len(fraction) > exponent:
        raise ValueError(f"not an amount of {currency_code}")
    amount_minor = int(whole + fraction.ljust(exponent, "0"))
    if amount_minor > AMOUNT_MINOR_MAX:
        raise ValueError("amount above 10^15 minor units")
    return Money(currency_code, sign * amount_minor)


def fee_of(amount_minor: int, rate_ppm: int) -> int:
    """Return the fee on an amount, both in minor units: rounded half-up once, capped at it."""
    if amount_minor < 0 or rate_ppm < 0:
        raise ValueError("fees are taken from amounts and rates of zero or more")
    return min(amount_minor, (amount_minor * rate_ppm + PPM // 2) // PPM)


def returned_fee(fee_minor: int, amount_minor: int, before_minor: int, refund_minor: int) -> int:
    """Return what part of a fee goes back with one refund, in minor units.

    f(refunded so far) − f(refunded before), f in proportion and half-up, so that the refund which
    completes the amount returns exactly what is left of the fee.
    """

    def returned_until(refunded_minor: int) -> int:
        return (2 * fee_minor * refunded_minor + amount_minor) // (2 * amount_minor)

    if not 0 < refund_minor <= amount_minor - before_minor:
        raise ValueError("a refund is more than zero and at most what is left")
    return returned_until(before_minor + refund_minor) - returned_until(before_minor)


def split_by_weights(amount_minor: int, weights: Sequence[int]) -> list[int]:
    """Split an amount exactly by weights: largest remainder, ties to the earlier receiver."""
    total = sum(weights)
    if total <= 0 or min(weights) < 0 or amount_minor < 0:
        raise ValueError("shares need an amount of zero or more and a weight above zero")
    shares = [amount_minor * weight // total for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(amount_minor * weights[i] % total), i))
    for position in order[: amount_minor - sum(shares)]:
        shares[position] += 1
    return shares
