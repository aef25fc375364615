"""Business days and periods: where a day may go, what a month is, what keeps it open."""

from __future__ import annotations

from datetime import date

import pytest

from services.account.domain.days import MOVES, BusinessDay, DayState, next_state
from services.account.domain.periods import Month, obstacle_to_closing


def _day(on: date, state: DayState, book: int = 0) -> BusinessDay:
    return BusinessDay(book, on, state, 0, None, None, None)


def test_nothing_opens_a_day_again() -> None:
    assert MOVES.keys() == set(DayState)
    assert not MOVES[DayState.CLOSED]
    assert not any(DayState.OPEN in after for after in MOVES.values())


@pytest.mark.parametrize(
    ("state", "holds", "after"),
    [
        (DayState.CUTTING, True, DayState.CLOSED),
        (DayState.CUTTING, False, DayState.BROKEN),
        (DayState.BROKEN, True, DayState.CLOSED),
        (DayState.BROKEN, False, None),
        (DayState.OPEN, True, None),
        (DayState.CLOSED, False, None),
    ],
)
def test_a_proof_moves_a_day(state: DayState, holds: bool, after: DayState | None) -> None:
    assert next_state(state, holds=holds) == after


def test_a_month_knows_its_days() -> None:
    february = Month.parse("2000-02")
    assert (february.first, february.last) == (date(2000, 2, 1), date(2000, 2, 29))
    assert str(Month.of(date(1998, 12, 31)).next()) == "1999-01"
    assert Month.parse("1998-12").ends_year
    assert not february.ends_year
    assert Month.parse("0998-01") < Month.parse("1998-01")
    with pytest.raises(ValueError, match="month"):
        Month.parse("1998-13")


def test_what_keeps_a_period_open_is_named() -> None:
    month = Month(1998, 1)
    over = {0: date(1998, 2, 1), 1: date(1998, 2, 1)}
    unclosed = [
        _day(date(1998, 1, 9), DayState.BROKEN),
        _day(date(1998, 1, 8), DayState.CUTTING, 1),
    ]
    assert obstacle_to_closing(month, over, [], []) is None
    assert obstacle_to_closing(month, over, unclosed, []) == "1998-01-08 CUTTING"
    behind = {0: date(1998, 2, 1), 1: date(1997, 12, 30)}
    assert obstacle_to_closing(month, behind, [], []) == "1997-12-30 OPEN"
    earlier = [Month(1997, 12), Month(1997, 11)]
    assert obstacle_to_closing(month, over, [], earlier) == "1997-11 OPEN"
