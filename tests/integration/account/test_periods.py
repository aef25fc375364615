"""Closing and archiving accounting periods: what keeps one open, what is kept, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import asyncpg
import pytest

from common.context import ActorType, CallContext, Principal
from common.errors import StateConflictError
from services.account.chart_files import read_chart
from services.account.domain.periods import Month, PeriodState
from services.account.domain.vouchers import NewVoucher, VoucherLine, VoucherSource
from services.account.errors import PeriodNotClosableError
from services.account.flows.archive_period import archive_period
from services.account.flows.close_period import PeriodParts, close_period
from services.account.store.periods import PeriodStore
from services.account.store.register import RegisterQuery, RegisterStore
from tests.integration.account.inner_books import (
    CLOCK,
    FIRST_DAY,
    IDS,
    InnerBooks,
    open_inner_books,
)

CALL = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("accountant",))
)
JANUARY, FEBRUARY = Month(1998, 1), Month(1998, 2)


@pytest.fixture
async def books(ledger_url: str) -> AsyncIterator[InnerBooks]:
    """Empty books; the first day is the 30th of January 1998."""
    async with open_inner_books(ledger_url) as opened:
        yield opened


@pytest.fixture
def parts(books: InnerBooks) -> PeriodParts:
    """What the flows of periods are made of."""
    return PeriodParts(
        books.pool, PeriodStore(books.pool), books.vouchers, read_chart().profit_subject
    )


async def _month_over(books: InnerBooks) -> None:
    """Two days of January with payments and fees, closed; February has begun."""
    await books.pay("bank", "user", 100)
    await books.pay("user", "fee", 7)
    await books.cut(FIRST_DAY + timedelta(days=1))
    await books.pay("bank", "shop", 50)
    await books.pay("cost", "bank", 2)
    await books.cut(date(1998, 2, 1))
    await books.close_all()


def _voucher(on: date, source: VoucherSource = VoucherSource.MANUAL) -> NewVoucher:
    return NewVoucher(
        id=IDS.new("vch"),
        book=0,
        business_date=on,
        source=source,
        source_id=IDS.new("req"),
        summary="late",
        currency_code="USD",
        lines=(VoucherLine("6602", True, 5), VoucherLine("2241.07", False, 5)),
        tenant_id="default",
        mode="LIVE",
    )


async def _book(books: InnerBooks, voucher: NewVoucher) -> None:
    await books.vouchers.months.make([voucher.business_date])
    async with books.pool.transaction() as connection:
        await books.vouchers.lock_cursor(connection, 0)
        await books.vouchers.insert(connection, 0, [voucher])


async def test_closing_a_period_keeps_the_balances_of_its_end(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await _month_over(books)
    period = await close_period(parts, JANUARY, CALL, CLOCK.now())
    assert (period.state, period.vouchers_count) == (PeriodState.CLOSED, 4)
    assert {
        one.subject_code: (
            one.opening_minor,
            one.debits_minor,
            one.credits_minor,
            one.closing_minor,
        )
        for one in period.balances
    } == {
        "1122.01": (0, 150, 2, 148),
        "2203.01": (0, 7, 100, 93),
        "2202.01": (0, 0, 50, 50),
        "6021.01": (0, 0, 7, 7),
        "6421.01": (0, 2, 0, 2),
    }
    again = await close_period(parts, JANUARY, CALL, CLOCK.now())
    assert again == period
    await books.pay("user", "fee", 3)
    await books.cut(date(1998, 3, 1))
    await books.close_all()
    february = await close_period(parts, FEBRUARY, CALL, CLOCK.now())
    by_code = {one.subject_code: one for one in february.balances}
    assert (by_code["6021.01"].opening_minor, by_code["6021.01"].closing_minor) == (7, 10)


async def test_closing_a_period_with_a_day_that_is_not_closed_names_it(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await books.pay("bank", "user", 100)
    with pytest.raises(PeriodNotClosableError) as refused:
        await close_period(parts, JANUARY, CALL, CLOCK.now())
    assert refused.value.metadata == {"period": "1998-01", "obstacle": "1998-01-30 OPEN"}
    await books.cut(date(1998, 2, 1))
    with pytest.raises(PeriodNotClosableError) as refused:
        await close_period(parts, JANUARY, CALL, CLOCK.now())
    assert refused.value.metadata["obstacle"] == "1998-01-30 CUTTING"


async def test_closing_a_period_before_an_earlier_one_names_that(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await _month_over(books)
    await books.cut(date(1998, 3, 1))
    await books.close_all()
    with pytest.raises(PeriodNotClosableError) as refused:
        await close_period(parts, FEBRUARY, CALL, CLOCK.now())
    assert refused.value.metadata["obstacle"] == "1998-01 OPEN"


async def test_closing_a_period_that_is_to_come_is_refused(
    books: InnerBooks, parts: PeriodParts
) -> None:
    with pytest.raises(PeriodNotClosableError) as refused:
        await close_period(parts, Month(1998, 5), CALL, CLOCK.now())
    assert refused.value.metadata["obstacle"] == "1998-01-30 OPEN"


async def test_a_voucher_into_a_closed_period_is_refused_by_the_database(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await _month_over(books)
    await _book(books, _voucher(date(1998, 1, 31)))
    await close_period(parts, JANUARY, CALL, CLOCK.now())
    for source in VoucherSource:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="1998-01 is closed"):
            await _book(books, _voucher(date(1998, 1, 31), source))
    await _book(books, _voucher(date(1998, 2, 1)))


async def test_a_voucher_that_is_being_written_is_in_the_period_or_refused(
    books: InnerBooks, parts: PeriodParts
) -> None:
    """The close waits for whoever writes into the month, and whoever waits for it is refused."""
    await _month_over(books)
    connection = await books.pool.connect()
    try:
        await connection.execute("BEGIN")
        # Without the cursor's lock, as only a fault of ours would write.
        await books.vouchers.insert(connection, 0, [_voucher(date(1998, 1, 31))])
        closing = asyncio.create_task(close_period(parts, JANUARY, CALL, CLOCK.now()))
        _, waiting = await asyncio.wait({closing}, timeout=0.2)
        assert waiting
        await connection.execute("COMMIT")
        period = await closing
    finally:
        await connection.close()
    assert {one.subject_code: one.closing_minor for one in period.balances}["6602"] == 5


async def test_closing_the_year_carries_profit_and_loss_forward(ledger_url: str) -> None:
    async with open_inner_books(ledger_url, date(1998, 12, 30)) as books:
        parts = PeriodParts(
            books.pool, PeriodStore(books.pool), books.vouchers, read_chart().profit_subject
        )
        await books.pay("bank", "user", 100)
        await books.pay("user", "fee", 9)
        await books.pay("cost", "bank", 2)
        await books.cut(date(1999, 1, 1))
        await books.close_all()
        period = await close_period(parts, Month(1998, 12), CALL, CLOCK.now())
        closing = {one.subject_code: one.closing_minor for one in period.balances}
        assert (closing["6021.01"], closing["6421.01"], closing["4103"]) == (0, 0, 7)
        assert closing["1122.01"] == 98
        proof = await books.prove()
        assert proof.holds, proof.findings
        assert {one.key.subject_code: one.inner_minor for one in proof.lines}["6021.01"] == 9
        await books.pay("user", "fee", 1)
        await books.cut(date(1999, 2, 1))
        await books.close_all()
        january = await close_period(parts, Month(1999, 1), CALL, CLOCK.now())
        opening = {one.subject_code: one.opening_minor for one in january.balances}
        assert (opening["6021.01"], opening["4103"]) == (0, 7)


async def test_archiving_a_period_leaves_everything_readable(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await _month_over(books)
    with pytest.raises(StateConflictError):
        await archive_period(parts, JANUARY, CALL, CLOCK.now())
    await close_period(parts, JANUARY, CALL, CLOCK.now())
    register = RegisterStore(books.pool)

    async def read() -> object:
        sums = await register.sum_subjects("default", "LIVE", FIRST_DAY, date(1998, 2, 1))
        query = RegisterQuery(0, "default", "LIVE", FIRST_DAY, date(1998, 2, 1))
        return sums, await register.list_page(query)

    before = await read()
    for _ in range(2):
        archived = await archive_period(parts, JANUARY, CALL, CLOCK.now())
        assert (archived.state, archived.vouchers_count) == (PeriodState.ARCHIVED, 4)
    assert archived.archived_at is not None
    assert await read() == before
    assert await books.fetch("SELECT count(*) FROM archived_vouchers") == 4
    assert await books.fetch("SELECT count(*) FROM vouchers") == 0
    assert (await books.prove()).holds
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await _book(books, _voucher(date(1998, 1, 31)))
    periods = await parts.periods.list_page("", 10)
    assert [(str(one.month), one.state) for one in periods] == [
        ("1998-02", PeriodState.OPEN),
        ("1998-01", PeriodState.ARCHIVED),
    ]


async def test_archiving_waits_for_readers(books: InnerBooks, parts: PeriodParts) -> None:
    await _month_over(books)
    await close_period(parts, JANUARY, CALL, CLOCK.now())
    connection = await books.pool.connect()
    try:
        await connection.execute("BEGIN")
        await connection.fetch("SELECT count(*) FROM all_vouchers")
        archiving = asyncio.create_task(archive_period(parts, JANUARY, CALL, CLOCK.now()))
        _, waiting = await asyncio.wait({archiving}, timeout=0.8)
        assert waiting
        await connection.execute("ROLLBACK")
        assert (await archiving).state == PeriodState.ARCHIVED
    finally:
        await connection.close()


async def test_waiting_for_readers_keeps_no_other_reader_out(
    books: InnerBooks, parts: PeriodParts
) -> None:
    """A proof reads vouchers for minutes; what reads beside it does not stand behind the move."""
    await _month_over(books)
    await close_period(parts, JANUARY, CALL, CLOCK.now())
    slow, quick = await books.pool.connect(), await books.pool.connect()
    archiving = None
    try:
        await slow.execute("BEGIN")
        await slow.fetch("SELECT count(*) FROM all_vouchers")
        archiving = asyncio.create_task(archive_period(parts, JANUARY, CALL, CLOCK.now()))
        await quick.execute("SET lock_timeout = '5s'")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation::regclass::text"
        async with asyncio.timeout(10):
            while not await books.fetch(f"{waiting} LIKE '%vouchers%'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await quick.fetchval("SELECT count(*) FROM all_vouchers") == 4
        await slow.execute("ROLLBACK")
        assert (await archiving).state == PeriodState.ARCHIVED
    finally:
        await slow.close()
        await quick.close()
        if archiving is not None:
            await asyncio.gather(archiving, return_exceptions=True)


async def test_archiving_by_several_at_once_archives_once(
    books: InnerBooks, parts: PeriodParts
) -> None:
    await _month_over(books)
    audited = "SELECT count(*) FROM audit WHERE action IN ('period.close', 'period.archive')"
    before = await books.fetch(audited)
    assert isinstance(before, int)
    closed = await asyncio.gather(
        *(close_period(parts, JANUARY, CALL, CLOCK.now()) for _ in range(4))
    )
    assert {one.state for one in closed} == {PeriodState.CLOSED}
    archived = await asyncio.gather(
        *(archive_period(parts, JANUARY, CALL, CLOCK.now()) for _ in range(4))
    )
    assert {one.state for one in archived} == {PeriodState.ARCHIVED}
    assert await books.fetch("SELECT count(*) FROM archived_vouchers") == 4
    assert await books.fetch(audited) == before + 2


async def test_the_end_of_a_year_without_a_day_in_december_is_not_passed_over(
    ledger_url: str,
) -> None:
    """Dates jump from November to January; profit and loss are carried forward all the same."""
    async with open_inner_books(ledger_url, date(1998, 11, 30)) as books:
        parts = PeriodParts(
            books.pool, PeriodStore(books.pool), books.vouchers, read_chart().profit_subject
        )
        await books.pay("bank", "user", 100)
        await books.pay("user", "fee", 9)
        await books.cut(date(1999, 1, 5))
        await books.cut(date(1999, 2, 1))
        await books.close_all()
        await close_period(parts, Month(1998, 11), CALL, CLOCK.now())
        with pytest.raises(PeriodNotClosableError) as refused:
            await close_period(parts, Month(1999, 1), CALL, CLOCK.now())
        assert refused.value.metadata["obstacle"] == "1998-12 OPEN"
        listed = [(str(one.month), one.state) for one in await parts.periods.list_page("", 10)]
        assert listed[1:] == [
            ("1999-01", PeriodState.OPEN),
            ("1998-12", PeriodState.OPEN),
            ("1998-11", PeriodState.CLOSED),
        ]
        december = await close_period(parts, Month(1998, 12), CALL, CLOCK.now())
        assert december.vouchers_count == 1
        january = await close_period(parts, Month(1999, 1), CALL, CLOCK.now())
        opening = {one.subject_code: one.opening_minor for one in january.balances}
        assert (opening["6021.01"], opening["4103"]) == (0, 9)
        assert (await archive_period(parts, Month(1998, 12), CALL, CLOCK.now())).state == (
            PeriodState.ARCHIVED
        )
        assert (await books.prove()).holds
