"""Months: the tables that grow for ever are cut by the time inside the transfer's id.

So one id can exist once only, and an old month can be set aside as a whole. Months are made ahead
by `PartitionKeeper.prepare`; one that an id needs all the same is made before its batch is booked.
An id outside the open window never gets here, so a month that was set aside stays away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from common.db.pool import Pool
from common.db.types import Connection
from common.ids import encode_time, time_of

_TABLES: Final = ("transfers", "entries", "resolutions")
# Any number that nobody else locks: two processes at their start make the same months.
_LOCK_KEY: Final = 0x6D6F6E746873
_MONTHS_AHEAD: Final = 2
# Asked of the table: `to_regclass` may go on saying what it said before the lock was waited for.
_EXISTS: Final = (
    "SELECT EXISTS (SELECT FROM pg_class"
    " WHERE relname = $1 AND relnamespace = current_schema()::regnamespace)"
)

Month = tuple[int, int]
"""Year and month, in UTC."""


def month_of(transfer_id: str) -> Month:
    """Return the month that an id falls into."""
    at = time_of(transfer_id)
    return at.year, at.month


def month_after(month: Month) -> Month:
    """Return the next month."""
    year, number = month
    return (year + 1, 1) if number == 12 else (year, number + 1)


def bounds_of(month: Month) -> tuple[str, str]:
    """Return the first id of a month and the first one after it."""
    first, after = month, month_after(month)
    return (
        f"tfr_{encode_time(datetime(*first, 1, tzinfo=UTC))}",
        f"tfr_{encode_time(datetime(*after, 1, tzinfo=UTC))}",
    )


class PartitionKeeper:
    """Makes months, and remembers which there are."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._made: set[Month] = set()
        self._bounds: list[tuple[str, str]] = []

    async def prepare(self, now: datetime) -> None:
        """Make the month of `now` and those ahead; safe to run twice and side by side."""
        month = (now.year, now.month)
        months = [month]
        for _ in range(_MONTHS_AHEAD):
            month = month_after(month)
            months.append(month)
        await self._make(months)

    def missing(self, transfer_ids: Collection[str]) -> set[Month]:
        """Return the months of ids that are not known to be there."""
        low, high = min(transfer_ids), max(transfer_ids)
        # Nearly always all of them are of one month.
        if any(first <= low and high < after for first, after in self._bounds):
            return set()
        return {month_of(transfer_id) for transfer_id in transfer_ids} - self._made

    async def make(self, months: Iterable[Month]) -> None:
        """Make the months that are missing."""
        await self._make(sorted(months))

    async def _make(self, months: list[Month]) -> None:
        months = [month for month in months if month not in self._made]
        if not months:
            return
        async with self._pool.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
            for month in months:
                for table in _TABLES:
                    await _create(connection, table, month)
        self._made.update(months)
        self._bounds = [bounds_of(month) for month in sorted(self._made, reverse=True)]


async def _create(connection: Connection, table: str, month: Month) -> None:
    """Make the month of a table where it is not there, beside readers and writers of all others.

    It is made for itself and attached then: made as a partition, it would take the whole table
    alone, and every posting would wait behind the longest reader.
    """
    # Names and bounds are made of our own digits and letters only.
    name = f"{table}_{month[0]:04d}_{month[1]:02d}"
    if await connection.fetchval(_EXISTS, name):
        return
    low, high = bounds_of(month)
    await connection.execute(
        f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    )
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')"
    )
