"""The day cut and what closes a day: states, races, kills."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from services.account.domain.days import DayState
from services.account.errors import BusinessDateNotLaterError
from tests.integration.account.inner_books import (
    FIRST_DAY,
    InnerBooks,
    NewDatabase,
    open_inner_books,
)

NEXT_DAY = FIRST_DAY + timedelta(days=1)


@pytest.fixture
async def books(new_database: NewDatabase) -> AsyncIterator[InnerBooks]:
    """Books of this test alone."""
    async with open_inner_books(new_database) as opened:
        yield opened


async def test_cutting_a_day_closes_it_with_its_vouchers_and_proof(books: InnerBooks) -> None:
    await books.pay("bank", "user", 100)
    await books.pay("user", "shop", 60)
    assert await books.cut(NEXT_DAY) == [(0, FIRST_DAY)]
    cut = await books.day(FIRST_DAY)
    assert (cut.day.state, cut.transfers_in_flight, cut.vouchers_count) == (DayState.CUTTING, 2, 0)
    assert (await books.day(NEXT_DAY)).day.state == DayState.OPEN
    await books.pay("user", "shop", 5)
    await books.close_all()
    closed = await books.day(FIRST_DAY)
    assert (closed.day.state, closed.transfers_in_flight) == (DayState.CLOSED, 0)
    assert closed.vouchers_count == 2
    assert closed.day.closed_at is not None
    changes = await books.days.list_changes((0, FIRST_DAY))
    assert [(one.from_state, one.to_state) for one in changes] == [
        ("", "OPEN"),
        ("OPEN", "CUTTING"),
        ("CUTTING", "CLOSED"),
    ]
    proofs = await books.proofs.read_of_days([FIRST_DAY])
    assert proofs[FIRST_DAY].holds
    assert {(line.key.subject_code, line.outer_minor) for line in proofs[FIRST_DAY].lines} == {
        ("1122.01", 100),
        ("2203.01", 35),
        ("2202.01", 65),
        ("6021.01", 0),
        ("6421.01", 0),
    }


async def test_cutting_again_changes_nothing_and_back_is_refused(books: InnerBooks) -> None:
    await books.cut(NEXT_DAY)
    assert await books.cut(NEXT_DAY) == []
    with pytest.raises(BusinessDateNotLaterError):
        await books.cut(FIRST_DAY)
    await books.close_all()
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED


async def test_proving_names_the_first_entry_that_does_not_fit(books: InnerBooks) -> None:
    for amount in (100, 10, 20):
        await books.pay("bank", "user", amount)
    proof = await books.prove()
    assert proof.holds
    assert proof.in_flight_count == 3
    assert date(1998, 1, 30) == proof.business_date
