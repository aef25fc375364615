"""Questions to the entries of one account: pages, the balance at an instant, business days.

None of them reads an account from its first entry on: each starts from the running sums that the
entries around its bounds carry. All parts of an answer are of one snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection
from common.ids import book_of
from services.account.domain.accounts import Account, Side
from services.account.store.rows import QUERIES as LEDGER_QUERIES
from services.account.store.rows import account_from

QUERIES: Final = load_queries("services.account", "statement_queries.sql")
"""The statements of this file."""

# Bounds differ from question to question, so each is planned for its own; and a table that was
# never analysed must not be read as a whole.
_SESSION: Final = (
    "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off;"
    " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
)

BOOKING_LIFE_MAX: Final = timedelta(minutes=5)
"""Longest that a transaction which books may live after it read the clock: each of its few
statements is ended after 10 s, each pause between two of them after 30 s (common.db.pool)."""

_CLOCK_SLACK: Final = timedelta(seconds=10)
"""How far the database's clock may have stepped, by a failover say, when a business day began:
what was booked that close to it is told apart by its date, not by its time."""

_ONE_DAY: Final = timedelta(days=1)
_FIRST_DAY: Final = date.min
_LAST_DAY: Final = date.max


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One entry as an account's statement shows it. Sums are those after it, in minor units."""

    account_id: str
    version: int
    transfer_id: str
    is_debit: bool
    amount_minor: int
    debits_posted_minor: int
    credits_posted_minor: int
    business_date: date
    booked_at: datetime
    appended_at: datetime | None
    """Of a drained credit: when it was appended to the buffer."""
    counter_account_id: str
    movement: str
    reference_id: str
    value_on: date | None


@dataclass(frozen=True, slots=True)
class Sums:
    """Debits and credits of an account, in minor units."""

    debits_minor: int = 0
    credits_minor: int = 0

    def balance_minor(self, normal_side: str) -> int:
        """The balance on a side."""
        difference = self.credits_minor - self.debits_minor
        return difference if normal_side == Side.CREDIT else -difference


@dataclass(frozen=True, slots=True)
class DayBound:
    """Where a business day ends on an account: everything booked on it or before."""

    sums: Sums
    version: int
    """No entry up to this version is of a later day."""
    entries_behind: int
    """How many entries behind `version` belong to the day or before it all the same."""
    last_version: int
    """No entry behind this version belongs to the day or before it."""


@dataclass(frozen=True, slots=True)
class StatementHead:
    """What all pages of one statement have in common."""

    opening: Sums
    closing: Sums
    entries: int
    """How many entries the days have."""
    after_version: int
    """All entries of the days are behind this version …"""
    last_version: int
    """… and none is behind this one."""


class StatementView:
    """The books as they were in one snapshot."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read_account(self, account_id: str) -> Account | None:
        """Read the account itself."""
        row = await self._connection.fetchrow(
            LEDGER_QUERIES["read_accounts"], book_of(account_id), [account_id]
        )
        return None if row is None else account_from(row)

    async def read_now(self) -> datetime:
        """Return the database's clock."""
        now: datetime = await self._connection.fetchval("SELECT clock_timestamp()")
        return now

    async def list_entries(
        self,
        account_id: str,
        *,
        after_version: int,
        last_version: int,
        from_on: date = _FIRST_DAY,
        to_on: date = _LAST_DAY,
        limit: int,
    ) -> list[StatementLine]:
        """Read a page of entries behind one version and up to another, oldest first."""
        rows = await self._connection.fetch(
            QUERIES["list_entries"],
            book_of(account_id),
            account_id,
            after_version,
            last_version,
            from_on,
            to_on,
            limit,
        )
        return [StatementLine(*row) for row in rows]

    async def sum_until(self, account: Account, at: datetime) -> Sums:
        """Sum what was booked until an instant, buffered credits by when they were appended."""
        book, account_id = book_of(account.id), account.id
        version, sums = await self._booked_until(account, account.version, at)
        late = await self._late_credits(account, version, account.version, at, None)
        waiting = await self._connection.fetchval(
            QUERIES["sum_buffered_until"], book, account_id, at
        )
        return Sums(
            sums.debits_minor, sums.credits_minor + int(late["credits_minor"]) + int(waiting)
        )

    async def read_head(self, account: Account, from_on: date, to_on: date) -> StatementHead:
        """Return what a statement over business days begins and ends with, as entries are now."""
        day_before = max(from_on, _FIRST_DAY + _ONE_DAY) - _ONE_DAY
        opening = await self._end_of_day(account, day_before)
        closing = await self._end_of_day(account, to_on)
        between = await self._connection.fetchval(
            QUERIES["count_entries"],
            book_of(account.id),
            account.id,
            opening.version,
            closing.version,
        )
        return StatementHead(
            opening=opening.sums,
            closing=closing.sums,
            entries=between + closing.entries_behind - opening.entries_behind,
            after_version=opening.version,
            last_version=closing.last_version,
        )

    async def _end_of_day(self, account: Account, day: date) -> DayBound:
        book, account_id, last = book_of(account.id), account.id, account.version
        began, next_began_at = await self._day_after(book, day)
        if not began:
            return DayBound(Sums(), 0, 0, 0)
        if next_began_at is None:
            version, sums = await self._booked_until(account, last, None)
            return DayBound(sums, version, 0, version)
        # Surely of the day or before; perhaps; and drained after it.
        version, sums = await self._booked_until(account, last, next_began_at - _CLOCK_SLACK)
        around, _ = await self._booked_until(account, last, next_began_at + _CLOCK_SLACK)
        near = await self._connection.fetchrow(
            QUERIES["sum_entries_of_days"], book, account_id, version, around, day
        )
        late = await self._late_credits(account, around, last, next_began_at + _CLOCK_SLACK, day)
        if near is None:
            raise RuntimeError("a sum has one row")
        return DayBound(
            sums=Sums(
                sums.debits_minor + int(near["debits_minor"]),
                sums.credits_minor + int(near["credits_minor"]) + int(late["credits_minor"]),
            ),
            version=version,
            entries_behind=near["entries"] + late["entries"],
            last_version=max(version, near["version"], late["version"]),
        )

    async def _day_after(self, book: int, day: date) -> tuple[bool, datetime | None]:
        """Say whether the book had begun by the end of a day, and when the next day began."""
        row = await self._connection.fetchrow(QUERIES["read_day_after"], book, day)
        if row is not None:
            return row["previous_date"] is None or row["previous_date"] <= day, row["advanced_at"]
        today: date | None = await self._connection.fetchval(
            LEDGER_QUERIES["read_business_date"], book
        )
        return today is not None and today <= day, None

    async def _booked_until(
        self, account: Account, last_version: int, at: datetime | None
    ) -> tuple[int, Sums]:
        row = await self._connection.fetchrow(
            QUERIES["read_sums_until"], book_of(account.id), account.id, last_version, at
        )
        if row is None:
            raise RuntimeError("a search ends with one version")
        return row["version"], Sums(row["debits_minor"], row["credits_minor"])

    async def _late_credits(
        self,
        account: Account,
        after_version: int,
        last_version: int,
        until: datetime,
        day: date | None,
    ) -> Any:
        return await self._connection.fetchrow(
            QUERIES["sum_late_credits"],
            book_of(account.id),
            account.id,
            after_version,
            last_version,
            until,
            BOOKING_LIFE_MAX,
            day,
        )


class StatementStore:
    """Reads the entries of accounts; changes nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def view(self) -> AsyncIterator[StatementView]:
        """One snapshot; all that is read in it fits together."""
        async with self._pool.transaction(isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(_SESSION)
            yield StatementView(connection)

    async def wait_for_bookings(self, account_id: str) -> None:
        """Wait until no transaction that books on an account is under way."""
        async with self._pool.transaction() as connection:
            await connection.execute(QUERIES["wait_for_bookings"], book_of(account_id), account_id)

    async def list_accounts(
        self, owner_id: str, tenant_id: str, mode: str, *, after_id: str = "", limit: int
    ) -> list[Account]:
        """Read a page of one owner's accounts in one world, by id."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["list_account_ids"], owner_id, tenant_id, mode, after_id, limit
            )
            books: dict[int, list[str]] = {}
            for row in rows:
                books.setdefault(book_of(row["id"]), []).append(row["id"])
            found = [
                account_from(row)
                for book, ids in books.items()
                for row in await connection.fetch(LEDGER_QUERIES["read_accounts"], book, ids)
            ]
        return sorted(found, key=lambda account: account.id)
