"""Accounting periods: closed months with their balances, and the months set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import asyncpg

from common.db.pool import Pool
from common.db.types import Connection, Record
from services.account.domain.days import BusinessDay
from services.account.domain.periods import Month, Period, PeriodBalance, PeriodState
from services.account.store.days import DAY_QUERIES, day_from

_TABLES: Final = ("vouchers", "voucher_lines")
_BOUNDS: Final = "archived_month"
# Whoever reads holds a table for as long as the statement takes. The move gives up before the
# server would call it a deadlock, and tries again.
_LOCK_SESSION: Final = "SET LOCAL lock_timeout = '500ms'"
_NO_LIMIT: Final = "SET LOCAL statement_timeout = 0"


class PartitionBusyError(Exception):
    """Somebody reads the tables that were to be moved."""


@dataclass(frozen=True, slots=True)
class ProfitAndLoss:
    """Where an income or expense subject stands, as debits less credits in minor units."""

    book: int
    tenant_id: str
    mode: str
    currency_code: str
    subject_code: str
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Unbalanced:
    """A world whose trial balance does not balance."""

    book: int
    tenant_id: str
    mode: str
    currency_code: str
    difference_minor: int


class PeriodStore:
    """The tables `periods` and `period_balances`, and the partitions of vouchers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lock(self, connection: Connection, month: Month) -> None:
        """Let no voucher into a month until the transaction ends."""
        await connection.execute(DAY_QUERIES["lock_period"], month.year * 100 + month.number)

    async def find(self, connection: Connection, month: Month) -> Period | None:
        """Read a closed period; None while it is open."""
        row = await connection.fetchrow(DAY_QUERIES["read_period"], str(month))
        return None if row is None else _period(row)

    async def list_not_closed(self, connection: Connection, month: Month) -> list[BusinessDay]:
        """Return the days of a month that are not closed."""
        rows = await connection.fetch(
            DAY_QUERIES["list_days_not_closed_between"], month.first, month.last
        )
        return [day_from(row) for row in rows]

    async def list_current(self, connection: Connection) -> dict[int, date]:
        """Return the business date of every book."""
        return {row[0]: row[1] for row in await connection.fetch(DAY_QUERIES["list_books"])}

    async def list_open_before(self, connection: Connection, month: Month) -> list[Month]:
        """Return the months before one that have business days and are open."""
        rows = await connection.fetch(DAY_QUERIES["list_open_months_before"], month.first)
        return [Month.parse(row[0]) for row in rows]

    async def list_profit_and_loss(
        self, connection: Connection, month: Month
    ) -> list[ProfitAndLoss]:
        """Return income and expense subjects that are not at zero at a month's end."""
        rows = await connection.fetch(DAY_QUERIES["list_profit_and_loss"], month.last)
        return [
            ProfitAndLoss(book, tenant_id, mode, currency, subject, int(balance))
            for book, tenant_id, mode, currency, subject, balance in rows
        ]

    async def list_unbalanced(self, connection: Connection, month: Month) -> list[Unbalanced]:
        """Return the worlds whose trial balance does not balance at a month's end."""
        rows = await connection.fetch(DAY_QUERIES["list_unbalanced_worlds"], month.last)
        return [
            Unbalanced(book, tenant_id, mode, currency, int(difference))
            for book, tenant_id, mode, currency, difference in rows
        ]

    async def insert(self, connection: Connection, month: Month, actor: str) -> Period:
        """Keep a month's balances, and close it."""
        await connection.execute(
            DAY_QUERIES["insert_period_balances"], str(month), month.first, month.last
        )
        row = await connection.fetchrow(DAY_QUERIES["insert_period"], str(month), actor)
        if row is None:
            raise RuntimeError(f"period {month} was not written")
        return _period(row)

    async def read_balances(
        self, month: Month, tenant_id: str, mode: str
    ) -> tuple[PeriodBalance, ...]:
        """Read one world's balances at the close of a period, by currency and subject."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                DAY_QUERIES["read_period_balances"], str(month), tenant_id, mode
            )
        return tuple(PeriodBalance(*tuple(row)[:4], *map(int, tuple(row)[4:])) for row in rows)

    async def count_vouchers(self, months: Sequence[Month]) -> dict[Month, int]:
        """Return how many vouchers months have."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                DAY_QUERIES["count_vouchers_of_periods"],
                [str(month) for month in months],
                [month.first for month in months],
                [month.last for month in months],
            )
        return {Month.parse(row[0]): row[1] for row in rows}

    async def list_page(self, before: str, limit: int) -> list[Period]:
        """Read a page of periods before one (empty: from the last), latest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(DAY_QUERIES["list_periods"], before or "~", limit)
        periods = [_period(row) for row in rows]
        counts = await self.count_vouchers([period.month for period in periods])
        return [replace(one, vouchers_count=counts[one.month]) for one in periods]

    async def lock_closed(self, connection: Connection, month: Month) -> Period:
        """Lock a period that was closed until the transaction ends."""
        row = await connection.fetchrow(DAY_QUERIES["lock_closed_period"], str(month))
        if row is None:
            raise RuntimeError(f"period {month} is open")
        return _period(row)

    async def bound_partitions(self, month: Month) -> None:
        """Write a month's bounds into its tables, so that moving them needs no look at the rows.

        Raises:
            PartitionBusyError: a reader was in the way, or another caller at the same.
        """
        for table in _TABLES:
            async with self._pool.transaction() as connection:
                name = await self._find_partition(connection, table, month)
                if name is None:
                    continue
                is_checked = await connection.fetchval(DAY_QUERIES["find_bounds"], name, _BOUNDS)
                if is_checked is None:
                    await self._add_bounds(connection, name, month)
            if not is_checked:
                await self._check_bounds(name)

    async def _add_bounds(self, connection: Connection, name: str, month: Month) -> None:
        await connection.execute(_LOCK_SESSION)
        try:
            # Names and bounds are made of our own digits and letters only.
            await connection.execute(
                f"ALTER TABLE {name} ADD CONSTRAINT {_BOUNDS} CHECK (business_date"
                f" >= '{month.first}' AND business_date < '{month.next().first}') NOT VALID"
            )
        except (asyncpg.LockNotAvailableError, asyncpg.DuplicateObjectError) as error:
            raise PartitionBusyError from error

    async def _check_bounds(self, name: str) -> None:
        """Look at the rows, beside readers and writers, for as long as it takes."""
        try:
            async with self._pool.transaction() as connection:
                await connection.execute(_NO_LIMIT)
                await connection.execute(f"ALTER TABLE {name} VALIDATE CONSTRAINT {_BOUNDS}")
        except asyncpg.UndefinedObjectError as error:
            raise PartitionBusyError from error

    async def move_partitions(self, connection: Connection, month: Month) -> None:
        """Move a month's tables under the archived ones.

        Raises:
            PartitionBusyError: a reader was in the way; the transaction has to be given up.
        """
        await connection.execute(_LOCK_SESSION)
        try:
            for table in _TABLES:
                name = await self._find_partition(connection, table, month)
                if name is None:
                    continue
                await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
                await connection.execute(
                    f"ALTER TABLE archived_{table} ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ('{month.first}') TO ('{month.next().first}')"
                )
                await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {_BOUNDS}")
        except asyncpg.LockNotAvailableError as error:
            raise PartitionBusyError from error

    async def mark_archived(self, connection: Connection, month: Month) -> Period:
        """Note that a period was set aside."""
        row = await connection.fetchrow(DAY_QUERIES["mark_archived"], str(month))
        if row is None:
            raise RuntimeError(f"period {month} was not locked")
        return _period(row)

    async def _find_partition(self, connection: Connection, table: str, month: Month) -> str | None:
        found: str | None = await connection.fetchval(
            DAY_QUERIES["find_partition"], table, str(month.first)
        )
        return found


def _period(row: Record) -> Period:
    return Period(
        Month.parse(row["period"]), PeriodState(row["state"]), row["closed_at"], row["archived_at"]
    )
