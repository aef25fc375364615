"""Follow the journal in the background, so that vouchers are never far behind the transfers.

Transfers come first. A round gathers what was booked meanwhile, because its fixed cost is that of a
few transactions; and while the ledger of this process is at work the maker rests four times as long
as it works, which leaves it a fifth of a processor. It stops resting when vouchers are half a
minute behind, so they never fall back further than that for long. With nothing to do it looks ever
more rarely, until the ledger books something; what other processes book is seen by looking. How far
vouchers are behind is a metric.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from common.clock import Clock
from common.db.pool import Pool
from common.telemetry import metrics
from services.account.flows.continue_numbering import continue_numbering
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.days import DayStore
from services.account.store.vouchers import Backlog, VoucherStore

# What is booked in this time is one round.
_GATHER_SECONDS: Final = 0.2
# How much longer a round is rested after than it took, while transfers are being booked.
_REST_FACTOR: Final = 4.0
# From here on vouchers are no longer put off.
_BEHIND_SECONDS_MAX: Final = 30.0
# Longest pause of an idle maker: how late it sees what another process booked.
_IDLE_SECONDS_MAX: Final = 1.0
_MONTHS_EVERY_SECONDS: Final = 3600.0
# Also seen: a database that was moved to another cluster while this process went on.
_NUMBERING_EVERY_SECONDS: Final = 5.0
# Somebody holds the journal up: an endless transaction. Told once in this time.
_LATE_SECONDS: Final = 60.0

_MADE = metrics.counter("paymesh.vouchers.made", "Vouchers made of the journal")

_log = logging.getLogger(__name__)


class VoucherMaker:
    """Makes the vouchers of all books of the database, beside others of its kind.

    Args:
        pool: the ledger's schema.
        store: its vouchers.
        days: its business dates, whose months are made ahead.
        booked: set by the ledger of this process when it has booked something.
        clock: the process's clock.
    """

    def __init__(
        self,
        pool: Pool,
        store: VoucherStore,
        days: DayStore,
        booked: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._store = store
        self._days = days
        self._booked = booked
        self._clock = clock
        self._behind_seconds: dict[int, float] = {}
        self._months_due_at = 0.0
        self._numbering_due_at = 0.0
        self._late_told_at = 0.0
        metrics.gauge(
            "paymesh.vouchers.behind",
            "How long ago the oldest transfer without a voucher was booked",
            self._read_behind,
            "s",
        )

    @property
    def behind_seconds(self) -> Mapping[int, float]:
        """How long ago the oldest transfer without a voucher was booked, by book; as last seen."""
        return dict(self._behind_seconds)

    async def run(self) -> None:
        """Make vouchers until cancelled."""
        idle_seconds = _GATHER_SECONDS
        while True:
            await self._prepare_months()
            self._booked.clear()
            began_at = self._clock.monotonic()
            if await self.make_round():
                idle_seconds = _GATHER_SECONDS
                await asyncio.sleep(self._rest_seconds(self._clock.monotonic() - began_at))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_seconds):
                    await self._booked.wait()
            if self._booked.is_set():
                # Let the next ones come along.
                await asyncio.sleep(_GATHER_SECONDS)
            idle_seconds = min(idle_seconds * 2, _IDLE_SECONDS_MAX)

    async def make_round(self) -> int:
        """Make the next vouchers of every book; return how many."""
        await self._heed_numbering()
        made = 0
        for book in await self._store.list_books():
            backlog = await self._store.read_backlog(book)
            self._behind_seconds[book] = 0.0 if backlog is None else backlog.seconds
            if backlog is not None:
                self._tell_if_late(book, backlog)
                progress = await make_vouchers(self._pool, self._store, book)
                _MADE.add(progress.made)
                made += progress.made
        return made

    def _rest_seconds(self, spent_seconds: float) -> float:
        """How long to rest after a round."""
        if max(self._behind_seconds.values()) > _BEHIND_SECONDS_MAX:
            return 0.0
        if self._booked.is_set():
            return max(_GATHER_SECONDS, _REST_FACTOR * spent_seconds)
        # Nobody is in the way; the next round finds out whether anything is left.
        return 0.0

    def _tell_if_late(self, book: int, backlog: Backlog) -> None:
        now = self._clock.monotonic()
        if backlog.seconds > _LATE_SECONDS and now >= self._late_told_at + _LATE_SECONDS:
            self._late_told_at = now
            _log.warning(
                "vouchers of book %d are %.0f s behind, at transaction %d",
                book,
                backlog.seconds,
                backlog.written_in,
            )

    async def _heed_numbering(self) -> None:
        """See to it, now and then, that new rows of the journal stand behind the cursor."""
        if self._clock.monotonic() >= self._numbering_due_at:
            # Where others kept it waiting, everybody waited behind it: not at once again.
            self._numbering_due_at = self._clock.monotonic() + _NUMBERING_EVERY_SECONDS
            await continue_numbering(self._pool)

    async def _prepare_months(self) -> None:
        """Make the months of the business date and those ahead, now and then."""
        if self._clock.monotonic() < self._months_due_at:
            return
        for book in await self._store.list_books():
            business_date = await self._days.read(book)
            if business_date is not None:
                await self._store.months.prepare(business_date)
        self._months_due_at = self._clock.monotonic() + _MONTHS_EVERY_SECONDS

    def _read_behind(self) -> Iterable[tuple[float, metrics.Attributes]]:
        return [(seconds, {"book": book}) for book, seconds in self._behind_seconds.items()]
