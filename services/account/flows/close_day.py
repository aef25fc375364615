"""Closes days that were cut: vouchers up to the watermark, the proof, then CLOSED or BROKEN.

Everything is found in the rows again, so a closer that dies loses nothing, and several at once do
no harm: a day moves only from the state that it was in. A broken day is proved again and again, at
growing intervals, until it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from common.backoff import Backoff
from common.clock import Clock
from common.db.pool import Pool
from common.db.types import Connection
from services.account.domain.days import BusinessDay, Day, DayReport, DayState, next_state
from services.account.domain.proofs import Proof
from services.account.flows.cut_day import Tell, cut_book
from services.account.flows.make_vouchers import make_vouchers
from services.account.flows.prove_books import DayProofs, Prover, report
from services.account.store.days import BusinessDayStore, DayMove, DayStore
from services.account.store.vouchers import VoucherStore

MakeUpTo = Callable[[int, int], Awaitable[bool]]
"""Makes vouchers of a book up to a transaction, inclusive; returns whether it got there."""

TellClosed = Callable[[Connection, Day, int], Awaitable[None]]
"""Tells of a closed day and its number of vouchers in the transaction of the move."""

TellBroken = Callable[[Connection, Proof], Awaitable[None]]

_ACTOR: Final = "SERVICE:account"
# Nobody waits: days that were cut meanwhile are proved together.
_IDLE_SECONDS: Final = 1.0
# Vouchers of a cut day wait for a transaction that is still running: milliseconds, as a rule.
_WAITING: Final = Backoff(first_seconds=0.02, longest_seconds=_IDLE_SECONDS)
_BROKEN: Final = Backoff(first_seconds=5.0, longest_seconds=600.0)
_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Broken:
    """A day whose proof did not hold."""

    times: int
    """How often in a row."""
    due_at: float
    """When it is proved again, by the clock's `monotonic`."""
    found_in: int
    """Number of the round that proved it last."""


_SOUND: Final = _Broken(0, 0.0, 0)


async def make_vouchers_up_to(pool: Pool, store: VoucherStore, book: int, written_in: int) -> bool:
    """Make vouchers of a book up to a transaction, inclusive; return whether it got there."""
    while True:
        progress = await make_vouchers(pool, store, book, up_to=written_in)
        if not progress.has_more:
            return True
        if not progress.made:
            return False  # an older transaction is still running


class DayCloser:
    """Drives cut days of all books to their end; one runs in each process."""

    def __init__(
        self,
        pool: Pool,
        dates: DayStore,
        days: BusinessDayStore,
        prover: Prover,
        clock: Clock,
        *,
        make_up_to: MakeUpTo,
        tell_cut: Tell,
        tell_closed: TellClosed,
        tell_broken: TellBroken,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._dates = dates
        self._days = days
        self._prover = prover
        self._clock = clock
        self._make_up_to = make_up_to
        self._tell_cut = tell_cut
        self._tell_closed = tell_closed
        self._tell_broken = tell_broken
        self._told = told
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._rounds = 0
        self._broken: dict[Day, _Broken] = {}

    async def run(self) -> None:
        """Close days until cancelled."""
        failures = 0
        while True:
            is_waiting = await self.close_due()
            failures = failures + 1 if is_waiting else 0
            pause = _WAITING.pause(failures) if is_waiting else _IDLE_SECONDS
            await _wait(self._wake, pause)
            self._wake.clear()

    async def wait_closed(self, days: Iterable[Day], until: float) -> list[DayReport]:
        """Let days be closed; return them when none is being cut any more, or the time is over.

        `until` is an instant of the clock's `monotonic`. Broken days are proved again at once.
        """
        wanted, began = list(days), self._rounds
        while True:
            moved, left = self._moved, until - self._clock.monotonic()
            found = await self._days.read(wanted)
            awaited = [day for day in found if self._is_awaited(day, began)]
            if left <= 0 or not awaited:
                return await self._days.read_reports(wanted)
            self._wake.set()
            # Another process may be the one that moves it.
            await _wait(moved, min(left, _LOOK_SECONDS))

    def _is_awaited(self, day: BusinessDay, began: int) -> bool:
        """Whether a day may still be closed soon, for who waits since a number of rounds.

        What a round found that had begun by then is not new: the day is made due again.
        """
        if day.state != DayState.BROKEN:
            return day.state == DayState.CUTTING
        broken = self._broken.get(day.day)
        if broken is not None and broken.found_in > began:
            return False
        self._broken.pop(day.day, None)
        return True

    async def close_due(self) -> bool:
        """Do what there is to do now; return whether a day still waits for its vouchers."""
        for book, furthest in (await self._days.list_lagging_books()).items():
            await cut_book(self._pool, self._dates, book, furthest, _ACTOR, self._tell_cut)
        self._rounds += 1
        number, now = self._rounds, self._clock.monotonic()
        due = [
            day
            for day in await self._days.list_unclosed()
            if day.state == DayState.CUTTING or self._broken.get(day.day, _SOUND).due_at <= now
        ]
        if not due:
            return False
        for book in sorted({day.book for day in due}):
            await self._make_vouchers(book, [day for day in due if day.book == book])
        result = await self._prover.prove_days(due)
        if result.proofs:
            await self._move(due, result, number)
        return bool(result.waiting)

    async def _make_vouchers(self, book: int, days: Sequence[BusinessDay]) -> None:
        watermark = max((day.watermark or 0 for day in days), default=0)
        await self._make_up_to(book, watermark - 1)

    async def _move(self, due: Sequence[BusinessDay], result: DayProofs, number: int) -> None:
        proved = [day for day in due if day.day not in result.waiting]
        moves = []
        for day in proved:
            to_state = next_state(day.state, holds=day.day not in result.broken)
            if to_state is not None:
                proof = result.proofs[day.business_date]
                cause = proof.id if to_state == DayState.CLOSED else f"{proof.id} is broken"
                moves.append(DayMove(day.day, day.state, to_state, cause))
        closing = {move.day for move in moves if move.to_state == DayState.CLOSED}
        async with self._pool.transaction() as connection:
            for proof in result.proofs.values():
                await self._prover.keep(connection, proof)
            moved = await self._days.move(connection, moves, _ACTOR)
            counts = await self._days.count_vouchers(connection, moved & closing)
            for day_closed in sorted(moved & closing):
                await self._tell_closed(connection, day_closed, counts.get(day_closed, 0))
            for business_date in sorted({on for _, on in moved - closing}):
                await self._tell_broken(connection, result.proofs[business_date])
        self._note(result, proved, number)
        done, self._moved = self._moved, asyncio.Event()
        done.set()
        self._told()

    def _note(self, result: DayProofs, proved: Sequence[BusinessDay], number: int) -> None:
        """Say what is broken, and put off the next proof of it."""
        for proof in result.proofs.values():
            report(proof)
        now = self._clock.monotonic()
        for day in proved:
            times = self._broken.pop(day.day, _SOUND).times + 1
            if day.day in result.broken:
                self._broken[day.day] = _Broken(times, now + _BROKEN.pause(times), number)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for so long; return whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
