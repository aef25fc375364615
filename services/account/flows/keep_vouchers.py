"""Follow the journal in the background, so that vouchers are never far behind the transfers.

A round gathers what was booked meanwhile: its fixed cost is that of a few transactions, so under
load a few large rounds a second take less of the machine than many small ones. With nothing to do
it looks ever more rarely, until the ledger of its process books something; other processes' work
is seen by looking. How far it is behind is a metric.
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
from services.account.flows.make_vouchers import CHUNK_TRANSFERS, make_vouchers
from services.account.store.days import DayStore
from services.account.store.vouchers import VoucherStore

# What is booked in this time is one round: a fifth of a second of 20,000 transfers a second.
_GATHER_SECONDS: Final = 0.2
# Longest pause of an idle maker: how late it sees what another process booked.
_IDLE_SECONDS_MAX: Final = 1.0
_MONTHS_EVERY_SECONDS: Final = 3600.0
# A journal that stays unmade for so long is held up by somebody: an endless transaction.
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
        pause = _GATHER_SECONDS
        while True:
            await self._prepare_months()
            if await self.make_round():
                pause = _GATHER_SECONDS
                await asyncio.sleep(pause)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._booked.wait()
            if self._booked.is_set():
                # Let the next ones come along.
                await asyncio.sleep(_GATHER_SECONDS)
            pause = min(pause * 2, _IDLE_SECONDS_MAX)

    async def make_round(self) -> int:
        """Make what is there now in every book; return how many vouchers."""
        self._booked.clear()
        made = 0
        for book in await self._store.list_books():
            while True:
                backlog = await self._store.read_backlog(book)
                self._behind_seconds[book] = 0.0 if backlog is None else backlog.seconds
                if backlog is None:
                    break
                if backlog.seconds > _LATE_SECONDS:
                    _log.warning(
                        "vouchers of book %d are %.0f s behind: transaction %d",
                        *(book, backlog.seconds, backlog.written_in),
                    )
                progress = await make_vouchers(self._pool, self._store, book)
                _MADE.add(progress.made)
                made += progress.made
                if progress.made < CHUNK_TRANSFERS:
                    break
        return made

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
