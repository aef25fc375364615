"""A journal that was copied by dump and restore: its numbers are those of another cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from services.account.domain.days import DayState
from services.account.flows.continue_numbering import continue_numbering
from services.account.flows.keep_vouchers import VoucherMaker
from services.account.store.journal_numbering import read_numbering
from tests.integration.account.inner_books import CLOCK, FIRST_DAY, InnerBooks, open_inner_books

NEXT_DAY = FIRST_DAY + timedelta(days=1)
# As if the old cluster had been so many transactions older than this one.
_COPIED = (
    "UPDATE transfers SET written_in = (written_in::text::bigint + 1000000000)::text::xid8",
    "UPDATE voucher_cursors SET written_in = (written_in::text::bigint + 1000000000)::text::xid8",
    (
        "UPDATE business_days SET"
        " begun_in = (begun_in::text::bigint + 1000000000)::text::xid8,"
        " watermark = (watermark::text::bigint + 1000000000)::text::xid8"
    ),
)


@pytest.fixture
async def books(ledger_url: str) -> AsyncIterator[InnerBooks]:
    """Empty inner books."""
    async with open_inner_books(ledger_url) as books:
        yield books


async def _copy(books: InnerBooks) -> None:
    for statement in _COPIED:
        await books.sql(statement)


def _maker(books: InnerBooks) -> VoucherMaker:
    return VoucherMaker(books.pool, books.vouchers, books.kit.days, books.kit.ledger.booked, CLOCK)


async def _make_all(books: InnerBooks, maker: VoucherMaker) -> None:
    async with asyncio.timeout(30):
        while await books.vouchers.read_backlog(0) is not None:
            await maker.make_round()


async def _vouchers(books: InnerBooks) -> object:
    return await books.fetch("SELECT count(*) FROM vouchers")


async def test_new_transfers_of_a_copied_journal_get_their_vouchers(books: InnerBooks) -> None:
    """With what was in flight when it was copied, and what is booked before anybody notices."""
    await books.pay("bank", "user", 100)
    maker = _maker(books)
    await maker.make_round()
    await _make_all(books, maker)
    await books.pay("bank", "user", 20)
    await books.cut(NEXT_DAY)
    await books.pay("user", "shop", 5)
    await _copy(books)
    await books.pay("user", "shop", 7)
    assert await _vouchers(books) == 1
    # Nobody but a new process is asked to notice; the old one does so after a while.
    maker = _maker(books)
    await maker.make_round()
    await _make_all(books, maker)
    await books.pay("user", "shop", 9)
    await _make_all(books, maker)
    assert await _vouchers(books) == 5
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED
    proof = await books.prove()
    assert (proof.holds, proof.in_flight_count) == (True, 0)
    await books.cut(NEXT_DAY + timedelta(days=1))
    await books.close_all()
    assert (await books.day(NEXT_DAY)).day.state == DayState.CLOSED


async def test_a_day_that_is_cut_before_the_copy_is_noticed_waits_for_its_vouchers(
    books: InnerBooks,
) -> None:
    await books.pay("bank", "user", 100)
    await _make_all(books, _maker(books))
    await _copy(books)
    await books.pay("bank", "user", 20)
    await books.cut(NEXT_DAY)
    assert await continue_numbering(books.pool)
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED
    assert await _vouchers(books) == 2
    assert (await books.prove()).holds


async def test_a_journal_that_was_copied_twice_goes_on_twice(books: InnerBooks) -> None:
    await books.pay("bank", "user", 100)
    for count in (1, 2):
        await _copy(books)
        await books.pay("bank", "user", count)
        assert await continue_numbering(books.pool)
        await books.pay("bank", "user", count)
        await _make_all(books, _maker(books))
        assert await _vouchers(books) == 1 + 2 * count
    assert (await books.prove()).holds


async def test_data_that_were_copied_into_a_new_schema_go_on(books: InnerBooks) -> None:
    """As by logical replication: the column's default is the new schema's, the shift the data's."""
    await books.pay("bank", "user", 100)
    await _copy(books)
    assert await continue_numbering(books.pool)
    await books.pay("bank", "user", 1)
    await _make_all(books, _maker(books))
    await books.sql(
        "ALTER TABLE transfers ALTER COLUMN written_in SET DEFAULT pg_current_xact_id()"
    )
    await books.pay("bank", "user", 2)
    maker = _maker(books)
    await maker.make_round()
    await books.pay("bank", "user", 3)
    await _make_all(books, maker)
    assert await _vouchers(books) == 4
    # And the other way round: the schema has a shift that the data know nothing of.
    await books.sql("UPDATE journal_numbering SET shift = 0")
    await books.pay("bank", "user", 4)
    maker = _maker(books)
    await maker.make_round()
    await books.pay("bank", "user", 5)
    await _make_all(books, maker)
    assert await _vouchers(books) == 6
    assert (await books.prove()).holds


async def test_numbers_of_the_same_cluster_stay_as_they_are(books: InnerBooks) -> None:
    async with books.pool.acquire() as connection:
        before = await read_numbering(connection)
    for on in range(1, 4):
        await books.pay("bank", "user", 1)
        await books.cut(date(1998, 2, on))
        assert await continue_numbering(books.pool)
        await _make_all(books, _maker(books))
        assert await continue_numbering(books.pool)
    async with books.pool.acquire() as connection:
        after = await read_numbering(connection)
    assert after.shift == before.shift
    assert not after.is_behind


async def test_going_on_beside_a_long_reader_is_put_off(books: InnerBooks) -> None:
    """Nobody is kept waiting for long; it is done at the next look."""
    await books.pay("bank", "user", 1)
    await _copy(books)
    reader = await books.pool.connect()
    try:
        await reader.execute("BEGIN")
        await reader.fetch("SELECT count(*) FROM transfers")
        assert not await continue_numbering(books.pool)
        await reader.execute("ROLLBACK")
    finally:
        await reader.close()
    assert await continue_numbering(books.pool)
    await books.pay("bank", "user", 1)
    await _make_all(books, _maker(books))
    assert await _vouchers(books) == 2


async def test_many_that_go_on_at_once_shift_once(books: InnerBooks) -> None:
    await books.pay("bank", "user", 1)
    await _copy(books)
    assert all(await asyncio.gather(*(continue_numbering(books.pool) for _ in range(4))))
    paying = [books.pay("bank", "user", 1) for _ in range(5)]
    await asyncio.gather(*paying)
    await _make_all(books, _maker(books))
    assert await _vouchers(books) == 6
    assert (await books.prove()).holds
