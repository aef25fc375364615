"""Day cuts out of the ordinary: empty days, several books and callers, a clock that goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from services.account.domain.days import DayState
from services.account.flows.cut_day import open_book
from tests.integration.account.inner_books import (
    CLOCK,
    FIRST_DAY,
    InnerBooks,
    open_inner_books,
)

NEXT_DAY = FIRST_DAY + timedelta(days=1)


@pytest.fixture
async def books(ledger_url: str) -> AsyncIterator[InnerBooks]:
    """Empty books; the first day is the 30th of January 1998."""
    async with open_inner_books(ledger_url) as opened:
        yield opened


async def test_days_without_any_posting_close(books: InnerBooks) -> None:
    """Of all books, also of one that was opened later and has no cursor of its own yet."""
    await books.cut(NEXT_DAY)
    await books.cut(NEXT_DAY + timedelta(days=1))
    await open_book(books.pool, books.kit.days, 1, FIRST_DAY, "test")
    await books.close_all()
    await books.cut(NEXT_DAY + timedelta(days=3))
    await books.close_all()
    for book, last in ((0, 4), (1, 3)):
        states = [
            (await books.days.read([(book, FIRST_DAY + timedelta(days=number))]))
            for number in range(5)
        ]
        found = [one[0].state for one in states if one]
        assert found == [DayState.CLOSED] * (last - 1) + [DayState.OPEN]
    proofs = await books.proofs.read_of_days([FIRST_DAY, NEXT_DAY])
    assert all(proof.holds for proof in proofs.values())


async def test_cutting_two_books_by_several_at_once_cuts_each_once(books: InnerBooks) -> None:
    await open_book(books.pool, books.kit.days, 1, FIRST_DAY, "test")
    await books.pay("bank", "user", 1)
    other = books.new_closer()
    running = [asyncio.create_task(closer.run()) for closer in (books.closer, other)]
    try:
        for number in range(1, 6):
            to = FIRST_DAY + timedelta(days=number)
            ended = await asyncio.gather(*(books.cut(to) for _ in range(3)))
            # The closers cut what lags behind, too: no day is ended by two of them all.
            days = [day for one in ended for day in one]
            assert len(days) == len(set(days))
        wanted = [(book, to - timedelta(days=1)) for book in (0, 1)]
        closed = await books.closer.wait_closed(wanted, CLOCK.monotonic() + 30)
        assert {one.day.state for one in closed} == {DayState.CLOSED}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    moves = "SELECT count(*) FROM business_day_changes WHERE to_state = $1"
    assert await books.fetch(moves, "CUTTING") == await books.fetch(moves, "CLOSED") == 10
    told = "SELECT count(*) FROM outbox WHERE type = 'account.business_day.closed.v1'"
    assert await books.fetch(told) == 10


async def test_a_month_that_another_maker_makes_meanwhile_is_no_error(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The closer and the maker of a process both come upon a month that is not there yet."""
    await books.pay("bank", "user", 1)
    await books.cut(NEXT_DAY)
    make = books.vouchers.make

    async def make_too_late(*arguments: Any) -> int:
        try:
            return await make(*arguments)
        except asyncpg.CheckViolationError:
            await books.vouchers.months.make([FIRST_DAY])
            raise

    monkeypatch.setattr(books.vouchers, "make", make_too_late)
    await books.close_all()
    report = await books.day(FIRST_DAY)
    assert (report.day.state, report.vouchers_count) == (DayState.CLOSED, 1)


async def test_proofs_go_on_when_the_clock_goes_back(books: InnerBooks) -> None:
    """The last one is of tomorrow: it keeps no other from being made, nor from being the last."""
    await books.pay("bank", "user", 1)
    await books.prove()
    await books.sql("UPDATE proofs SET proved_at = proved_at + interval '1 day'")
    for _ in range(2):
        await books.pay("bank", "user", 1)
        proof = await books.prover.prove_if_moved(timedelta(seconds=60))
        assert proof is not None
        assert await books.proofs.read_last() == proof
    await books.cut(NEXT_DAY)
    await books.close_all()
    report = await books.day(FIRST_DAY)
    assert report.day.state == DayState.CLOSED
