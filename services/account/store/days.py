"""The business date of each book, and how it moved."""

from __future__ import annotations

from datetime import date

from common.db.pool import Pool
from common.db.types import Connection
from services.account.store.rows import QUERIES


class DayStore:
    """The tables `business_dates` and `business_date_changes`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, book: int) -> date | None:
        """Read the business date of a book; None when the book was never opened."""
        async with self._pool.acquire() as connection:
            return _date(await connection.fetchval(QUERIES["read_business_date"], book))

    async def insert(
        self, connection: Connection, book: int, business_date: date, actor: str
    ) -> None:
        """Write the first business date of a book, where it has none."""
        await connection.execute(QUERIES["insert_business_date"], book, business_date, actor)

    async def lock(self, connection: Connection, book: int) -> date | None:
        """Read the business date; no posting of the book is under way until the commit."""
        return _date(await connection.fetchval(QUERIES["lock_business_date"], book))

    async def move(
        self, connection: Connection, book: int, previous: date, business_date: date, actor: str
    ) -> None:
        """Write the new business date of a locked book, and the line of history about it."""
        await connection.execute(QUERIES["update_business_date"], book, business_date, actor)
        await connection.execute(
            QUERIES["insert_business_date_change"], book, business_date, previous, actor
        )


def _date(value: object) -> date | None:
    return value if isinstance(value, date) else None
