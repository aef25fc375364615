"""Months of vouchers: partitions by business date, which periods are closed and archived by.

Made ahead by the maker, and on demand where a business date is in none: replays and demonstrations
jump through the years. A month that was archived stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

from common.db.pool import Pool
from common.db.types import Connection

_TABLES: Final = ("vouchers", "voucher_lines")
# Any number that nobody else locks: two processes may need the same month at once.
_LOCK_KEY: Final = 0x766F7563686572
_MONTHS_AHEAD: Final = 2
_IS_PART: Final = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = $1::text::regclass)"


def month_after(first_on: date) -> date:
    """Return the first day of the next month."""
    year, month = first_on.year, first_on.month
    return date(year + 1, 1, 1) if month == 12 else date(year, month + 1, 1)


class VoucherMonths:
    """Makes months, and remembers which there are."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._made: set[date] = set()

    async def prepare(self, business_date: date) -> None:
        """Make the month of a business date and those ahead."""
        month = business_date.replace(day=1)
        months = [month]
        for _ in range(_MONTHS_AHEAD):
            month = month_after(month)
            months.append(month)
        await self.make(months)

    async def ensure(self, connection: Connection, dates: Iterable[date]) -> None:
        """Make the months of dates in the caller's transaction, where they are not there.

        To be called before the cursor is locked: who makes a month waits for others that make one.
        """
        for month in sorted({one.replace(day=1) for one in dates} - self._made):
            name = f"{_TABLES[-1]}_{month:%Y_%m}"
            if await connection.fetchval("SELECT to_regclass($1)", name) is None:
                # Remembered when another transaction sees it: this one may come to nothing.
                await _create(connection, [month])
            else:
                self._made.add(month)

    async def make(self, dates: Iterable[date]) -> bool:
        """Make the months of dates; return whether any was not known to be there."""
        months = sorted({one.replace(day=1) for one in dates} - self._made)
        if not months:
            return False
        async with self._pool.transaction() as connection:
            await _create(connection, months)
        self._made.update(months)
        return True


async def _create(connection: Connection, months: Iterable[date]) -> None:
    """Make months that are not there, beside readers and writers of all others.

    A table is made for itself and attached then: made as a partition, it would take the whole table
    alone, and everybody would wait behind the longest reader.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
    for month in months:
        for table in _TABLES:
            # Names and bounds are made of our own digits and letters only.
            name = f"{table}_{month:%Y_%m}"
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name}"
                f" (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            )
            # Made by another one meanwhile, which `to_regclass` might not see yet; or archived.
            if await connection.fetchval(_IS_PART, name):
                continue
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{month}') TO ('{month_after(month)}')"
            )
