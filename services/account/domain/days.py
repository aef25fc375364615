"""Business days: how far each is, and which way it may go."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final


class DayState(enum.StrEnum):
    """How far a business day is."""

    OPEN = "OPEN"
    """Transfers are booked on it."""
    CUTTING = "CUTTING"
    """The next day has begun; vouchers are being made, the proof is to come."""
    BROKEN = "BROKEN"
    """Vouchers are complete, the proof does not hold. It is proved again until it does."""
    CLOSED = "CLOSED"
    """Vouchers are complete and the proof held."""


MOVES: Final[dict[DayState, frozenset[DayState]]] = {
    DayState.OPEN: frozenset({DayState.CUTTING}),
    DayState.CUTTING: frozenset({DayState.BROKEN, DayState.CLOSED}),
    DayState.BROKEN: frozenset({DayState.CLOSED}),
    DayState.CLOSED: frozenset(),
}
"""Where a day may go from each state. Nothing opens a closed day again."""

Day = tuple[int, date]
"""A book and one of its business days."""


@dataclass(frozen=True, slots=True)
class BusinessDay:
    """One business day of one book."""

    book: int
    business_date: date
    state: DayState
    begun_in: int
    """No transfer of the day was written in an earlier transaction."""
    watermark: int | None
    """Every transfer of the day was written in an earlier transaction; None while it is open."""
    cut_at: datetime | None
    closed_at: datetime | None

    @property
    def day(self) -> Day:
        """What it is found by."""
        return self.book, self.business_date


@dataclass(frozen=True, slots=True)
class DayReport:
    """A business day with what has happened on it so far."""

    day: BusinessDay
    vouchers_count: int
    """Vouchers in its registers, of all worlds."""
    transfers_in_flight: int
    """Transfers of the day without a voucher yet."""


def next_state(state: DayState, *, holds: bool) -> DayState | None:
    """Return where a day goes whose vouchers are complete, by its proof; None where it stays."""
    wanted = DayState.CLOSED if holds else DayState.BROKEN
    return wanted if wanted in MOVES[state] else None
