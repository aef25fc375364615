"""The day cut and what closes a day: states, races, kills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta

import asyncpg
import pytest

from common.db.types import Connection
from services.account.domain.accounts import AccountSpec
from services.account.domain.days import BusinessDay, DayState
from services.account.errors import BusinessDateNotLaterError
from services.account.flows.cut_day import cut_day, open_book
from services.account.flows.post_transfers import Ledger
from services.account.flows.prove_books import DayProofs
from services.account.store.days import DayStore
from tests.integration.account.conftest import close_kit, open_kit
from tests.integration.account.inner_books import (
    CLOCK,
    FIRST_DAY,
    IDS,
    InnerBooks,
    open_inner_books,
)

NEXT_DAY = FIRST_DAY + timedelta(days=1)


@pytest.fixture
async def books(ledger_url: str) -> AsyncIterator[InnerBooks]:
    """Empty books; the first day is the 30th of January 1998."""
    async with open_inner_books(ledger_url) as opened:
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


async def test_a_credit_in_a_buffer_is_entered_on_the_day_that_it_was_booked(
    books: InnerBooks,
) -> None:
    spec = AccountSpec(IDS.new("acc"), "till", "merchant_pending", "USD", is_buffered=True)
    [books.accounts["till"]] = await books.kit.open([spec])
    for amount in (5, 6):
        await books.pay("bank", "till", amount)
    assert await books.fetch("SELECT count(*) FROM buffered_credits") == 2
    await books.cut(NEXT_DAY)
    assert await books.fetch("SELECT count(*) FROM buffered_credits") == 0
    dates = await books.fetch(
        "SELECT array_agg(DISTINCT business_date) FROM entries WHERE account_id = $1",
        books.accounts["till"].id,
    )
    assert dates == [FIRST_DAY]
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED


async def test_a_cut_waits_for_what_is_being_booked(books: InnerBooks) -> None:
    """A posting that is under way is on the old day, with its watermark and its buffers."""
    spec = AccountSpec(IDS.new("acc"), "till", "merchant_pending", "USD", is_buffered=True)
    [till] = await books.kit.open([spec])
    connection = await books.pool.connect()
    try:
        await connection.execute("BEGIN")
        await connection.fetch("SELECT 1 FROM business_dates WHERE book = 0 FOR SHARE")
        cutting = asyncio.create_task(books.cut(NEXT_DAY))
        _, waiting = await asyncio.wait({cutting}, timeout=0.2)
        assert waiting, "the day was cut though a posting was under way"
        written_in = await connection.fetchval("SELECT pg_current_xact_id()")
        await connection.execute(
            "INSERT INTO buffered_credits (book, business_date, amount_minor, booked_at,"
            " account_id, transfer_id) VALUES (0, $1, 5, now(), $2, $3)",
            FIRST_DAY,
            till.id,
            IDS.new("tfr"),
        )
        await connection.execute("COMMIT")
    finally:
        await connection.close()
    await cutting
    day = (await books.day(FIRST_DAY)).day
    assert day.watermark is not None
    assert written_in < day.watermark
    assert (await books.day(NEXT_DAY)).day.begun_in > 0
    assert await books.fetch("SELECT count(*) FROM buffered_credits") == 0


async def test_cutting_while_many_post_puts_every_transfer_on_one_of_the_days(
    books: InnerBooks,
) -> None:
    """Three processes post without a pause; no cut waits for a moment when none of them does."""
    others = [await open_kit(books.kit.url) for _ in range(2)]
    done = asyncio.Event()
    booked: list[tuple[str, date | None]] = []

    async def post(ledger: Ledger) -> None:
        while not done.is_set():
            moves = [books.move("bank", "user", 1), books.move("user", "shop", 1)]
            booked.extend((r.transfer_id, r.business_date) for r in await ledger.post(moves))

    ledgers = [books.kit.ledger, *(kit.ledger for kit in others)]
    work = [asyncio.create_task(post(ledger)) for ledger in ledgers for _ in range(3)]
    days = [FIRST_DAY + timedelta(days=number) for number in range(1, 9)]
    try:
        async with asyncio.timeout(30):
            for day in days:
                await books.cut(day)
                await books.closer.close_due()
    finally:
        done.set()
        await asyncio.gather(*work)
        await asyncio.gather(*(close_kit(kit) for kit in others))
    await books.cut(days[-1] + timedelta(days=1))
    await books.close_all()
    for day in (FIRST_DAY, *days):
        report = await books.day(day)
        assert report.day.state == DayState.CLOSED, await books.proofs.read_of_days([day])
        assert report.vouchers_count == sum(1 for _, on in booked if on == day)
        stray = await books.fetch(
            "SELECT count(*) FROM transfers WHERE business_date = $1"
            " AND NOT (written_in >= $2 AND written_in < $3)",
            day,
            report.day.begun_in,
            report.day.watermark,
        )
        assert stray == 0
    assert {on for _, on in booked} <= {FIRST_DAY, *days}
    assert (await books.prove()).holds


async def test_cutting_by_two_callers_at_once_cuts_once(books: InnerBooks) -> None:
    await books.pay("bank", "user", 1)
    ended = await asyncio.gather(*(books.cut(NEXT_DAY) for _ in range(4)))
    assert sorted(ended) == [[], [], [], [(0, FIRST_DAY)]]
    changes = await books.days.list_changes((0, FIRST_DAY))
    assert [one.to_state for one in changes] == ["OPEN", "CUTTING"]
    await asyncio.gather(*(books.closer.close_due() for _ in range(4)))
    await books.close_all()
    changes = await books.days.list_changes((0, FIRST_DAY))
    assert [one.to_state for one in changes] == ["OPEN", "CUTTING", "CLOSED"]
    told = "SELECT count(*) FROM outbox WHERE type = 'account.business_day.closed.v1'"
    assert await books.fetch(told) == 1


async def test_cutting_to_different_days_at_once_leaves_the_later(books: InnerBooks) -> None:
    later = NEXT_DAY + timedelta(days=1)
    results = await asyncio.gather(books.cut(NEXT_DAY), books.cut(later), return_exceptions=True)
    assert all(isinstance(one, list | BusinessDateNotLaterError) for one in results), results
    assert await books.kit.days.read(0) == later
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED


async def _die(connection: Connection) -> None:
    """End a session from the server's side, as a crash of the process would."""
    await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid())")


class DyingDays(DayStore):
    """Loses its connection after one step of the cut."""

    step = ""

    async def lock(self, connection: Connection, book: int) -> date | None:
        """Lock, then die if it is time."""
        locked = await super().lock(connection, book)
        if self.step == "lock":
            await _die(connection)
        return locked

    async def drain(self, connection: Connection, book: int) -> int:
        """Drain, then die if it is time."""
        drained = await super().drain(connection, book)
        if self.step == "drain":
            await _die(connection)
        return drained

    async def move(
        self, connection: Connection, book: int, previous: date, business_date: date, actor: str
    ) -> None:
        """Move, then die if it is time."""
        await super().move(connection, book, previous, business_date, actor)
        if self.step == "move":
            await _die(connection)


@pytest.mark.parametrize("step", ["lock", "drain", "move", "tell"])
async def test_a_cut_that_dies_leaves_the_day_whole_and_is_done_by_the_next(
    books: InnerBooks, step: str
) -> None:
    await books.pay("bank", "user", 1)
    dying = DyingDays(books.pool)
    dying.step = step

    async def tell(connection: Connection, *_: object) -> None:
        if step == "tell":
            await _die(connection)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await cut_day(books.pool, dying, books.days, NEXT_DAY, "OPERATOR:test", tell)
    assert await books.kit.days.read(0) == FIRST_DAY
    assert (await books.day(FIRST_DAY)).day.state == DayState.OPEN
    assert await books.cut(NEXT_DAY) == [(0, FIRST_DAY)]
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED


async def test_a_cut_that_dies_between_two_books_goes_on_by_itself(books: InnerBooks) -> None:
    await open_book(books.pool, books.kit.days, 1, FIRST_DAY, "test")

    async def tell(connection: Connection, book: int, *_: object) -> None:
        if book == 1:
            await _die(connection)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await cut_day(books.pool, books.kit.days, books.days, NEXT_DAY, "OPERATOR:test", tell)
    assert await books.days.list_books() == {0: NEXT_DAY, 1: FIRST_DAY}
    await books.close_all()
    assert await books.days.list_books() == {0: NEXT_DAY, 1: NEXT_DAY}
    for book in (0, 1):
        assert (await books.day(FIRST_DAY, book)).day.state == DayState.CLOSED


@pytest.mark.parametrize("step", ["vouchers", "proof", "keep", "move", "tell"])
async def test_a_close_that_dies_is_done_by_the_next(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """After any step the day is still being cut, and the next closer closes it once."""
    await books.pay("bank", "user", 1)
    await books.cut(NEXT_DAY)
    targets = {
        "vouchers": (books.vouchers, "move_cursor"),
        "proof": (books.prover, "prove_days"),
        "keep": (books.prover, "keep"),
        "move": (books.days, "move"),
    }

    async def die_telling(connection: Connection, *_: object) -> None:
        await _die(connection)

    closer = books.new_closer(tell_closed=die_telling if step == "tell" else None)
    with monkeypatch.context() as patch:
        if step in targets:
            target, name = targets[step]
            whole = getattr(target, name)

            async def dying(*arguments: object) -> object:
                done = await whole(*arguments)
                first = arguments[0]
                if isinstance(first, list):  # outside of any transaction
                    raise OSError("gone")
                await _die(first)  # type: ignore[arg-type]
                return done

            patch.setattr(target, name, dying)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await closer.close_due()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CUTTING
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED
    assert (await books.day(FIRST_DAY)).vouchers_count == 1
    told = "SELECT count(*) FROM outbox WHERE type = 'account.business_day.closed.v1'"
    assert await books.fetch(told) == 1


async def test_a_day_waits_for_its_vouchers(books: InnerBooks) -> None:
    """The maker is held up by an older transaction; nothing is proved before it has ended."""
    connection = await books.pool.connect()
    try:
        await connection.execute("BEGIN")
        await connection.fetchval("SELECT pg_current_xact_id()")
        await books.pay("bank", "user", 1)
        await books.cut(NEXT_DAY)
        assert await books.closer.close_due() is True
        waiting = await books.day(FIRST_DAY)
        assert (waiting.day.state, waiting.transfers_in_flight) == (DayState.CUTTING, 1)
        assert await books.proofs.read_of_days([FIRST_DAY]) == {}
        await connection.execute("COMMIT")
    finally:
        await connection.close()
    assert await books.closer.close_due() is False
    assert (await books.day(FIRST_DAY)).day.state == DayState.CLOSED


async def test_waiting_for_the_close_ends_with_it_or_with_the_time(books: InnerBooks) -> None:
    await books.pay("bank", "user", 1)
    days = await books.cut(NEXT_DAY)
    [still] = await books.closer.wait_closed(days, CLOCK.monotonic())
    assert still.day.state == DayState.CUTTING
    running = asyncio.create_task(books.closer.run())
    try:
        [closed] = await books.closer.wait_closed(days, CLOCK.monotonic() + 30)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert closed.day.state == DayState.CLOSED


async def test_a_broken_day_is_told_of_and_closed_once_it_holds(books: InnerBooks) -> None:
    await books.pay("bank", "user", 100)
    await books.cut(NEXT_DAY)
    change = "UPDATE accounts SET credits_posted_minor = credits_posted_minor + $1 WHERE id = $2"
    await books.sql(change, 7, books.accounts["user"].id)
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.BROKEN
    proof = (await books.proofs.read_of_days([FIRST_DAY]))[FIRST_DAY]
    assert not proof.holds
    assert [one.account_id for one in proof.unfit] == [books.accounts["user"].id]
    told = "SELECT count(*) FROM outbox WHERE type = 'account.proof.broken.v1'"
    assert await books.fetch(told) == 1
    # Proved again only after a while.
    await books.close_all()
    assert (await books.proofs.read_of_days([FIRST_DAY]))[FIRST_DAY] == proof
    await books.sql(change, -7, books.accounts["user"].id)
    # Whoever cuts again wants to know at once.
    running = asyncio.create_task(books.closer.run())
    try:
        [report] = await books.closer.wait_closed([(0, FIRST_DAY)], CLOCK.monotonic() + 30)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert report.day.state == DayState.CLOSED
    changes = await books.days.list_changes((0, FIRST_DAY))
    assert [one.to_state for one in changes] == ["OPEN", "CUTTING", "BROKEN", "CLOSED"]
    assert await books.fetch(told) == 1


async def test_a_mended_day_is_not_answered_from_a_proof_that_was_under_way(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cuts again while another day is being proved is told of the broken one anew."""
    await books.pay("bank", "user", 100)
    await books.cut(NEXT_DAY)
    change = "UPDATE accounts SET credits_posted_minor = credits_posted_minor + $1 WHERE id = $2"
    await books.sql(change, 7, books.accounts["user"].id)
    await books.close_all()
    assert (await books.day(FIRST_DAY)).day.state == DayState.BROKEN
    await books.sql(change, -7, books.accounts["user"].id)
    await books.cut(NEXT_DAY + timedelta(days=1))
    prove, begun, go = books.prover.prove_days, asyncio.Event(), asyncio.Event()

    async def prove_slowly(days: Sequence[BusinessDay]) -> DayProofs:
        begun.set()
        await go.wait()
        return await prove(days)

    monkeypatch.setattr(books.prover, "prove_days", prove_slowly)
    running = asyncio.create_task(books.closer.run())
    try:
        await begun.wait()
        days = [(0, FIRST_DAY), (0, NEXT_DAY)]
        waiting = asyncio.create_task(books.closer.wait_closed(days, CLOCK.monotonic() + 30))
        _, pending = await asyncio.wait({waiting}, timeout=0.1)
        assert pending
        go.set()
        assert {one.day.state for one in await waiting} == {DayState.CLOSED}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_days_are_listed_latest_first_in_pages(books: InnerBooks) -> None:
    for number in range(1, 4):
        await books.cut(FIRST_DAY + timedelta(days=number))
    first = await books.days.list_reports(None, 3)
    rest = await books.days.list_reports(first[-1].day.day, 3)
    dates = [one.day.business_date for one in (*first, *rest)]
    assert dates == [FIRST_DAY + timedelta(days=number) for number in (3, 2, 1, 0)]
