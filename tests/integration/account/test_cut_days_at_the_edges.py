"""Day cuts out of the ordinary: empty days, several books and callers, a clock that goes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest

from common.errors import Outcome, UnavailableError
from services.account.domain.days import DayState
from services.account.flows.cut_day import cut_book, cut_day, open_book
from services.account.store.proofs import PROOF_QUERIES, Snapshot
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


async def test_a_cut_that_moved_only_some_books_does_not_say_that_nothing_moved(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A posting hangs between two books; who asks for the day after the current one beware."""
    monkeypatch.setattr("services.account.flows.cut_day._TRIES", 1)
    await open_book(books.pool, books.kit.days, 1, FIRST_DAY, "test")
    hanging = await books.pool.connect()

    async def hang(book: int) -> None:
        if book == wanted:
            await hanging.execute("BEGIN")
            await hanging.fetch("SELECT 1 FROM business_dates WHERE book = 1 FOR SHARE")

    async def cut(to: date) -> UnavailableError:
        parts = (books.pool, books.kit.days, books.days)
        with pytest.raises(UnavailableError) as refused:
            await cut_day(*parts, to, "OPERATOR:test", drain_ahead=hang)
        await hanging.execute("ROLLBACK")
        return refused.value

    try:
        wanted = 0
        assert (await cut(NEXT_DAY)).outcome is Outcome.NOT_EXECUTED
        assert await books.days.list_books() == {0: FIRST_DAY, 1: FIRST_DAY}
        wanted = 1
        assert (await cut(NEXT_DAY)).outcome is Outcome.UNKNOWN
        assert await books.days.list_books() == {0: NEXT_DAY, 1: FIRST_DAY}
    finally:
        await hanging.close()
    await books.close_all()
    assert await books.days.list_books() == {0: NEXT_DAY, 1: NEXT_DAY}


async def test_a_day_of_one_book_is_not_proved_with_that_of_another(books: InnerBooks) -> None:
    """Cut days of two books are of two dates; of the first book the second date is not over yet."""
    store, tomorrow = books.kit.days, NEXT_DAY + timedelta(days=1)
    await open_book(books.pool, store, 1, NEXT_DAY, "test")
    await books.pay("bank", "user", 1)
    await cut_book(books.pool, store, 0, NEXT_DAY, "test")
    await books.pay("bank", "user", 2)
    await cut_book(books.pool, store, 1, tomorrow, "test")
    await books.pay("bank", "user", 3)
    horizon = await books.fetch("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert isinstance(horizon, int)
    assert await books.make_up_to(0, horizon - 1)
    days = await books.days.read([(0, FIRST_DAY), (1, NEXT_DAY)])
    proved = await books.prover.prove_days(days)
    assert {on: proof.holds for on, proof in proved.proofs.items()} == {
        FIRST_DAY: True,
        NEXT_DAY: True,
    }


async def test_a_day_beyond_what_is_looked_at_is_not_closed(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much differs that nobody has seen whether the later days fit."""
    for module in ("flows.prove_books", "store.proofs"):
        monkeypatch.setattr(f"services.account.{module}.DIFFERENCES_MAX", 1)
    for number in range(1, 3):
        await books.pay("bank", "user", 60)
        await books.cut(FIRST_DAY + timedelta(days=number))
    horizon = await books.fetch("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert isinstance(horizon, int)
    assert await books.make_up_to(0, horizon - 1)
    await books.sql("UPDATE voucher_lines SET amount_minor = 61 WHERE subject_code = '2203.01'")
    await books.close_all()
    for day in (FIRST_DAY, NEXT_DAY):
        assert (await books.day(day)).day.state == DayState.BROKEN


async def test_proving_a_cut_day_reads_no_table_whole(books: InnerBooks) -> None:
    """Also where the server knows nothing of the tables, and however often it was asked."""
    await books.pay("bank", "user", 1)
    await books.cut(NEXT_DAY)
    await books.close_all()
    day = (await books.day(FIRST_DAY)).day
    async with books.pool.acquire() as connection, connection.transaction():
        snapshot = Snapshot(connection)
        for _ in range(7):
            assert await snapshot.compare_cut_days([day]) == []
        planned_once = await connection.fetchval(
            "SELECT sum(generic_plans) FROM pg_prepared_statements"
            " WHERE statement LIKE '%accounts_off%' AND statement NOT LIKE '%generic_plans%'"
        )
        plan = await connection.fetch(
            "EXPLAIN " + PROOF_QUERIES["compare_days"],
            [0],
            [FIRST_DAY],
            day.begun_in,
            day.watermark,
            100,
        )
    text = "\n".join(row[0] for row in plan)
    assert re.search(r"Index Cond: .*written_in >= ", text), text
    assert re.search(r"Index Cond: .*business_date = ANY", text), text
    assert planned_once == 0


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
