"""The purchases of a real online shop, read from its own file.

Two forms are read. The sample's: customer in the master set, customer in the sample, date, CDs,
dollars. The master set's: customer, date, CDs, dollars, perhaps under a header line. Source: the
CDNOW data set, 1997-01 to 1998-06 (Fader and Hardie).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from common.money import parse_decimal

CURRENCY: Final = "USD"
_COLUMNS_SAMPLE: Final = 5
_COLUMNS_MASTER: Final = 4
_DATE_LENGTH: Final = len("19970101")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the file."""

    line: int
    """Number of the data line, 1, 2 …; the order number comes from it, never from the content."""
    customer: str
    bought_on: date
    cds: int
    amount_minor: int
    """In cents; zero is possible."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no purchase."""

    line: int
    reason: str


def read_purchases(
    lines: Iterable[str], limit: int | None = None
) -> tuple[list[Purchase], list[Unreadable]]:
    """Return the first `limit` data lines, by date (stable), and the lines that cannot be read.

    Blank lines and a header line do not count; an unreadable line does, and the rest goes on.
    """
    purchases: list[Purchase] = []
    unreadable: list[Unreadable] = []
    number = 0
    is_first = True
    for text in lines:
        fields = text.split()
        if not fields:
            continue
        is_header, is_first = is_first and _is_header(fields), False
        if is_header:
            continue
        number += 1
        if limit is not None and number > limit:
            break
        try:
            purchases.append(_purchase(number, fields))
        except ValueError as error:
            unreadable.append(Unreadable(number, str(error)))
    return sorted(purchases, key=lambda purchase: purchase.bought_on), unreadable


def _is_header(fields: list[str]) -> bool:
    """A header has no digit at all; a line of data always has."""
    return not any(letter.isdigit() for field in fields for letter in field)


def _purchase(number: int, fields: list[str]) -> Purchase:
    if len(fields) == _COLUMNS_SAMPLE:
        customer, _, day, cds, dollars = fields
    elif len(fields) == _COLUMNS_MASTER:
        customer, day, cds, dollars = fields
    else:
        raise ValueError(f"{len(fields)} columns instead of 4 or 5")
    if not (customer.isascii() and customer.isalnum()):
        raise ValueError("the customer is no number")
    if not (cds.isascii() and cds.isdigit()):
        raise ValueError("the count of CDs is no number")
    try:
        if len(day) != _DATE_LENGTH:  # strptime takes a month or day of one digit, too
            raise ValueError(day)
        bought_on = datetime.strptime(day, "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise ValueError(f"{day!r} is no date of the form YYYYMMDD") from None
    try:
        amount = parse_decimal(dollars, CURRENCY)
    except ValueError:
        raise ValueError(f"{dollars!r} is no amount in dollars and cents") from None
    if amount.amount_minor < 0:
        raise ValueError("the amount is negative")
    return Purchase(number, customer, bought_on, int(cds), amount.amount_minor)
