"""The business date of each book, and the business days behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from services.account.domain.days import BusinessDay, Day, DayReport, DayState
from services.account.store.buffers import drain_locked
from services.account.store.rows import QUERIES

DAY_QUERIES: Final = load_queries("services.account", "day_queries.sql")
"""Statements of business days and periods."""

# A round of the closer proves these together, in one snapshot.
_UNCLOSED_MAX: Final = 400
# Postings share the lock of the date's row, and whoever may share it does not queue: with several
# processes at work there is always one that holds it, and a cut would wait for ever. For the
# table's lock all queue. A posting that hangs must not hold up the others: the cut gives up.
_QUEUE_UP: Final = "SET LOCAL lock_timeout = '1s'; LOCK TABLE business_dates IN EXCLUSIVE MODE"
# All there are: buffers are drained before a cut, so few have anything left.
_BUFFERS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class DayMove:
    """That a day goes from one state to another, and why."""

    day: Day
    from_state: DayState
    to_state: DayState
    cause: str


@dataclass(frozen=True, slots=True)
class DayChange:
    """One line of a day's history."""

    changed_at: datetime
    from_state: str
    """Empty where the day began."""
    to_state: str
    actor: str
    cause: str


class DayStore:
    """The tables `business_dates` and `business_date_changes`, which every posting looks at."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, book: int) -> date | None:
        """Read the business date of a book; None when the book was never opened."""
        async with self._pool.acquire() as connection:
            return _date(await connection.fetchval(QUERIES["read_business_date"], book))

    async def insert(
        self, connection: Connection, book: int, business_date: date, actor: str
    ) -> None:
        """Write the first business date of a book and open its day, where it has none."""
        await connection.execute(QUERIES["insert_business_date"], book, business_date, actor)

    async def lock(self, connection: Connection, book: int) -> date | None:
        """Read the business date; no posting of the book is under way until the commit.

        Raises:
            asyncpg.LockNotAvailableError: a posting took too long; others were kept waiting behind.
        """
        await connection.execute(_QUEUE_UP)
        return _date(await connection.fetchval(QUERIES["lock_business_date"], book))

    async def drain(self, connection: Connection, book: int) -> int:
        """Post what is left in the buffers of a locked book; return how many credits."""
        drained = 0
        for row in await connection.fetch(QUERIES["list_buffers"], book, _BUFFERS_MAX):
            await connection.execute(QUERIES["lock_buffer"], book, row["account_id"])
            drained += await drain_locked(connection, book, row["account_id"])
        return drained

    async def move(
        self, connection: Connection, book: int, previous: date, business_date: date, actor: str
    ) -> None:
        """Cut the day of a locked book and open the next, with their lines of history."""
        await connection.execute(QUERIES["update_business_date"], book, business_date, actor)
        await connection.execute(
            QUERIES["insert_business_date_change"], book, business_date, previous, actor
        )


class BusinessDayStore:
    """The tables `business_days` and `business_day_changes`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_books(self) -> dict[int, date]:
        """Return the business date of every book."""
        async with self._pool.acquire() as connection:
            return {row[0]: row[1] for row in await connection.fetch(DAY_QUERIES["list_books"])}

    async def list_lagging_books(self) -> dict[int, date]:
        """Return books whose date is behind the furthest, each with that furthest date."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(DAY_QUERIES["list_lagging_books"])
        return {row[0]: row[1] for row in rows}

    async def list_unclosed(self) -> list[BusinessDay]:
        """Return days that are cut and not closed, the oldest first; a round's worth."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(DAY_QUERIES["list_unclosed_days"], _UNCLOSED_MAX)
        return [day_from(row) for row in rows]

    async def list_with_vouchers_due(self, connection: Connection, days: Iterable[Day]) -> set[Day]:
        """Return those of some cut days that have transfers without a voucher."""
        rows = await connection.fetch(DAY_QUERIES["list_days_with_vouchers_due"], *_columns(days))
        return {(row[0], row[1]) for row in rows}

    async def move(self, connection: Connection, moves: Sequence[DayMove], actor: str) -> set[Day]:
        """Move days, each only from where it is said to be; return those that were moved."""
        rows = await connection.fetch(
            DAY_QUERIES["move_days"],
            *_columns(move.day for move in moves),
            [move.from_state for move in moves],
            [move.to_state for move in moves],
            [move.cause for move in moves],
            actor,
        )
        return {(row[0], row[1]) for row in rows}

    async def count_vouchers(self, connection: Connection, days: Iterable[Day]) -> dict[Day, int]:
        """Return how many vouchers days have; days without any are left out."""
        rows = await connection.fetch(DAY_QUERIES["count_vouchers"], *_columns(days))
        return {(row[0], row[1]): row[2] for row in rows}

    async def read(self, days: Iterable[Day]) -> list[BusinessDay]:
        """Read days, oldest first; unknown ones are left out."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(DAY_QUERIES["read_days"], *_columns(days))
        return [day_from(row) for row in rows]

    async def read_reports(self, days: Iterable[Day]) -> list[DayReport]:
        """Read days with what has happened on them, oldest first; unknown ones are left out."""
        async with self._pool.transaction(isolation="repeatable_read", readonly=True) as connection:
            rows = await connection.fetch(DAY_QUERIES["read_days"], *_columns(days))
            return await self._report(connection, rows)

    async def list_reports(self, before: Day | None, limit: int) -> list[DayReport]:
        """Read a page of days before one, latest first."""
        book, business_date = before or (0, date.max)
        async with self._pool.transaction(isolation="repeatable_read", readonly=True) as connection:
            rows = await connection.fetch(DAY_QUERIES["list_days"], business_date, book, limit)
            return await self._report(connection, rows)

    async def list_changes(self, day: Day) -> list[DayChange]:
        """Read the history of a day, oldest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(DAY_QUERIES["list_day_changes"], *day)
        return [DayChange(*row) for row in rows]

    async def _report(self, connection: Connection, rows: Sequence[Record]) -> list[DayReport]:
        days = [day_from(row) for row in rows]
        vouchers = await self.count_vouchers(connection, [day.day for day in days])
        in_flight: dict[Day, int] = {}
        if any(day.state != DayState.CLOSED for day in days):
            flying = await connection.fetch(DAY_QUERIES["count_transfers_in_flight"])
            in_flight = {(row[0], row[1]): row[2] for row in flying}
        return [DayReport(d, vouchers.get(d.day, 0), in_flight.get(d.day, 0)) for d in days]


def day_from(row: Record) -> BusinessDay:
    """Read a business day; the order of columns is that of `read_days`."""
    return BusinessDay(row[0], row[1], DayState(row[2]), *tuple(row)[3:])


def _columns(days: Iterable[Day]) -> tuple[list[int], list[date]]:
    listed = list(days)
    return [book for book, _ in listed], [business_date for _, business_date in listed]


def _date(value: object) -> date | None:
    return value if isinstance(value, date) else None
