"""Accounting periods: calendar months of all books and worlds."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from services.account.domain.days import BusinessDay, DayState


class PeriodState(enum.StrEnum):
    """How far a period is."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month."""

    year: int
    number: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read `YYYY-MM`; raises ValueError."""
        first = date.fromisoformat(f"{text}-01")
        return cls(first.year, first.month)

    @classmethod
    def of(cls, day: date) -> Month:
        """Return the month that a day is in."""
        return cls(day.year, day.month)

    @property
    def first(self) -> date:
        """Its first day."""
        return date(self.year, self.number, 1)

    @property
    def last(self) -> date:
        """Its last day."""
        return self.next().first - timedelta(days=1)

    @property
    def ends_year(self) -> bool:
        """Whether profit and loss are carried forward at its end."""
        return self.number == 12

    def next(self) -> Month:
        """Return the month after."""
        return Month(self.year + 1, 1) if self.number == 12 else Month(self.year, self.number + 1)


@dataclass(frozen=True, slots=True)
class PeriodBalance:
    """Where a subject stood over a period; balances on its normal side, in minor units."""

    tenant_id: str
    mode: str
    subject_code: str
    currency_code: str
    opening_minor: int
    debits_minor: int
    credits_minor: int
    closing_minor: int


@dataclass(frozen=True, slots=True)
class Period:
    """One accounting period."""

    month: Month
    state: PeriodState
    closed_at: datetime | None = None
    archived_at: datetime | None = None
    vouchers_count: int = 0
    balances: tuple[PeriodBalance, ...] = field(default=())


def obstacle_to_closing(
    month: Month,
    current: Mapping[int, date],
    unclosed: Sequence[BusinessDay],
    earlier: Collection[Month],
) -> str | None:
    """Say what keeps a period from being closed; None for nothing.

    Args:
        month: the period.
        current: the business date of each book.
        unclosed: its days that are not closed.
        earlier: months before it that have business days and are open.
    """
    for day in sorted(unclosed, key=lambda d: (d.business_date, d.book)):
        return f"{day.business_date} {day.state}"
    for business_date in sorted(current.values()):
        if business_date <= month.last:
            return f"{business_date} {DayState.OPEN}"
    if earlier:
        return f"{min(earlier)} {PeriodState.OPEN}"
    return None
