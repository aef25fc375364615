"""Vouchers as they are written: made of the journal by sets, or one by one.

Whoever writes holds the lock of the book's cursor. Where the business date is locked too, that one
comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import attrgetter
from typing import Final

from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection
from services.account.domain.vouchers import NewVoucher, Voucher, VoucherSource
from services.account.store.voucher_months import VoucherMonths

VOUCHER_QUERIES: Final = load_queries("services.account", "voucher_queries.sql")
"""The statements of the inner books."""

# A chunk is small beside its tables, and all its rows are found by key; planned for an unknown
# number of rows, a statement might read all accounts or the whole journal.
_SESSION: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
    " SET LOCAL enable_mergejoin = off"
)


_read_columns: Final = attrgetter(
    "id",
    "business_date",
    "source",
    "source_id",
    "summary",
    "currency_code",
    "total_minor",
    "tenant_id",
    "mode",
    "rule",
    "rule_version",
    "value_on",
    "biz_trace_id",
    "actor",
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What can be made next. Both are transaction ids, inclusive."""

    complete: int
    """Up to here the journal is complete."""
    until: int
    """Up to here the chunk goes."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The first row of the journal that has no voucher yet."""

    written_in: int
    seconds: float
    """How long ago it was booked, by the database's clock."""


class VoucherStore:
    """The tables `vouchers`, `voucher_lines`, `voucher_numbers`, `voucher_cursors`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.months = VoucherMonths(pool)

    async def list_books(self) -> list[int]:
        """Return the books that have a business date."""
        async with self._pool.acquire() as connection:
            return [row[0] for row in await connection.fetch(VOUCHER_QUERIES["list_books"])]

    async def lock_cursor(self, connection: Connection, book: int) -> int:
        """Return the last transaction whose vouchers are made; keep other writers of vouchers away.

        A book is followed from the beginning of its journal.
        """
        locked: int | None = await connection.fetchval(VOUCHER_QUERIES["lock_cursor"], book)
        if locked is None:
            await connection.execute(VOUCHER_QUERIES["insert_cursor"], book)
            locked = await connection.fetchval(VOUCHER_QUERIES["lock_cursor"], book)
        if locked is None:
            raise RuntimeError(f"book {book} has no cursor")
        return locked

    async def try_lock_cursor(self, connection: Connection, book: int) -> int | None:
        """Return the same, or None where somebody else writes vouchers of the book just now."""
        locked: int | None = await connection.fetchval(VOUCHER_QUERIES["try_lock_cursor"], book)
        if locked is None and await self.read_cursor(connection, book) is None:
            await connection.execute(VOUCHER_QUERIES["insert_cursor"], book)
            locked = await connection.fetchval(VOUCHER_QUERIES["try_lock_cursor"], book)
        return locked

    async def read_cursor(self, connection: Connection, book: int) -> int | None:
        """Return the cursor without a lock; None where nothing was ever made."""
        cursor: int | None = await connection.fetchval(VOUCHER_QUERIES["read_cursor"], book)
        return cursor

    async def read_backlog(self, book: int) -> Backlog | None:
        """Return the first row that has no voucher; None when the cursor has passed all."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(VOUCHER_QUERIES["read_backlog"], book)
        return None if row is None else Backlog(*row)

    async def plan_by_key(self, connection: Connection) -> None:
        """Let the statements of this transaction find their rows by key, however many there are."""
        await connection.execute(_SESSION)

    async def find_chunk(
        self, connection: Connection, book: int, cursor: int, transfers: int
    ) -> Chunk:
        """Return what comes after the cursor: whole transactions, until about so many transfers.

        Once in a transaction: the server keeps its list of sessions until the end of it.
        """
        row = await connection.fetchrow(VOUCHER_QUERIES["find_chunk"], book, cursor, transfers - 1)
        if row is None:
            raise RuntimeError("a query without a table gave no row")
        return Chunk(*row)

    async def list_dates(
        self, connection: Connection, book: int, cursor: int, until: int
    ) -> list[date]:
        """Return the business dates of the journal after the cursor, up to a transaction."""
        rows = await connection.fetch(VOUCHER_QUERIES["list_dates"], book, cursor, until)
        return [row[0] for row in rows]

    async def make(self, connection: Connection, book: int, cursor: int, until: int) -> int:
        """Make the vouchers after the cursor up to a transaction; return how many.

        Raises:
            asyncpg.CheckViolationError: a business date is in no month.
        """
        count: int = await connection.fetchval(
            VOUCHER_QUERIES["make_vouchers"], book, cursor, until
        )
        return count

    async def move_cursor(self, connection: Connection, book: int, until: int) -> None:
        """Note that the vouchers of a locked book are made up to a transaction."""
        await connection.execute(VOUCHER_QUERIES["move_cursor"], book, until)

    async def share_business_date(self, connection: Connection, book: int) -> date:
        """Return the business date of a book, which stays until the transaction ends.

        To be locked before the cursor.
        """
        found: date | None = await connection.fetchval(VOUCHER_QUERIES["share_business_date"], book)
        if found is None:
            raise RuntimeError(f"book {book} has no business date")
        return found

    async def share_days(
        self, connection: Connection, book: int, dates: Sequence[date]
    ) -> frozenset[date]:
        """Return which of some days still take vouchers, which they do until the transaction ends.

        To be locked after the business date and before the cursor.
        """
        rows = await connection.fetch(VOUCHER_QUERIES["share_days"], book, list(dates))
        return frozenset(row[0] for row in rows)

    async def insert(
        self, connection: Connection, book: int, vouchers: Sequence[NewVoucher]
    ) -> list[Voucher]:
        """Book vouchers of one book, whose cursor is locked, in their order.

        `months.ensure` was called for their days before.

        Raises:
            asyncpg.IntegrityConstraintViolationError: a day's period is closed.
        """
        columns = [list(column) for column in zip(*map(_read_columns, vouchers), strict=True)]
        rows = await connection.fetch(VOUCHER_QUERIES["insert_vouchers"], book, *columns)
        given = {row["id"]: (row["number"], row["recorded_at"]) for row in rows}
        lines = [
            (
                voucher.business_date,
                given[voucher.id][0],
                place,
                line.is_debit,
                line.amount_minor,
                voucher.tenant_id,
                voucher.mode,
                line.subject_code,
                voucher.currency_code,
                voucher.source is VoucherSource.CLOSING,
            )
            for voucher in vouchers
            for place, line in enumerate(voucher.lines, start=1)
        ]
        columns = [list(column) for column in zip(*lines, strict=True)]
        await connection.execute(VOUCHER_QUERIES["insert_voucher_lines"], book, *columns)
        return [_booked(voucher, *given[voucher.id]) for voucher in vouchers]


def _booked(voucher: NewVoucher, number: int, recorded_at: datetime) -> Voucher:
    values = {name: getattr(voucher, name) for name in NewVoucher.__slots__}
    return Voucher(**values, number=number, recorded_at=recorded_at)
