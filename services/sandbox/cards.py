"""Test cards: numbers that decide what the simulated bank says.

A test card has sixteen digits: `622848`, two digits of behaviour, seven of serial number, and the
Luhn check digit, so it passes every form check that a real one passes. Any other number that passes
the check is approved, one that does not is refused as invalid.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

TEST_PREFIX: Final = "622848"
SERIALS_MAX: Final = 10**7


class CardBehaviour(enum.StrEnum):
    """What the bank does with a charge; the value is the pair of digits in the number."""

    APPROVE = "00"
    """Approves."""
    APPROVE_SLOWLY = "05"
    """Takes the money, but says "in processing" for a while (answer code 05)."""
    DECLINE_SLOWLY = "03"
    """Refuses for lack of funds, but says "no answer yet" for a while (answer code 03)."""
    REFUSED_BY_ISSUER = "60"
    """Declines: ask your bank."""
    INVALID = "61"
    """Declines: no such card."""
    RESTRICTED = "63"
    """Declines: the card is blocked."""
    INSUFFICIENT_FUNDS = "64"
    """Declines: not enough money on the card."""
    EXPIRED = "73"
    """Declines: the card is expired."""
    LIMIT_EXCEEDED = "81"
    """Declines: the month's limit is used up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the bank says to a charge."""

    at_once: str
    """Answer code of the charge itself."""
    finally_: str
    """Answer code once it is known."""


_VERDICTS: Final = {
    CardBehaviour.APPROVE_SLOWLY: Verdict("05", "00"),
    CardBehaviour.DECLINE_SLOWLY: Verdict("03", "64"),
}


def luhn_digit(digits: str) -> str:
    """Return the check digit that completes `digits` (ISO/IEC 7812-1)."""
    total = 0
    for position, letter in enumerate(reversed(digits)):
        value = int(letter) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def test_card(behaviour: CardBehaviour, serial: int) -> str:
    """Return test card number `serial` (0 … 9,999,999) of a behaviour."""
    if not 0 <= serial < SERIALS_MAX:
        raise ValueError("serial numbers of test cards have seven digits")
    digits = f"{TEST_PREFIX}{behaviour.value}{serial:07d}"
    return digits + luhn_digit(digits)


test_card.__test__ = False  # type: ignore[attr-defined]  # the name is no test's


def verdict_on(number: str) -> Verdict:
    """Return what the bank says when this card is charged."""
    plain = number.isascii() and number.isdigit() and 13 <= len(number) <= 19
    if not plain or luhn_digit(number[:-1]) != number[-1]:
        return Verdict("61", "61")
    if not number.startswith(TEST_PREFIX):
        return Verdict("00", "00")
    try:
        behaviour = CardBehaviour(number[6:8])
    except ValueError:
        return Verdict("61", "61")
    return _VERDICTS.get(behaviour, Verdict(behaviour.value, behaviour.value))


def masked(number: str) -> str:
    """Return what may be remembered and told of a card: the first six and last four digits."""
    return f"{number[:6]}******{number[-4:]}" if len(number) >= 13 else "****"
