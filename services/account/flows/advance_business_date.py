"""The business date: opened once per book, then only ever forward, never while a posting runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date

from common.db.pool import Pool
from common.db.types import Connection
from services.account.errors import BusinessDateNotLaterError
from services.account.store.days import DayStore


async def open_book(
    pool: Pool, store: DayStore, book: int, business_date: date, actor: str
) -> date:
    """Give a book its first business date where it has none; return the one that it has."""
    async with pool.transaction() as connection:
        await store.insert(connection, book, business_date, actor)
    opened = await store.read(book)
    return business_date if opened is None else opened


Tell = Callable[[Connection, date, date], Awaitable[None]]
"""Tells of a move (the date before, the date now) in its transaction."""


async def advance_business_date(
    pool: Pool,
    store: DayStore,
    book: int,
    business_date: date,
    actor: str,
    tell: Tell | None = None,
) -> tuple[date, date]:
    """Move the business date forward; return the date before and the one now.

    The same date again changes nothing, so that a day cut is safe to run twice. Postings that are
    under way are waited for: what they book keeps the old date, all that comes after has the new.

    Raises:
        BusinessDateNotLaterError: it would go back.
    """
    async with pool.transaction() as connection:
        previous = await store.lock(connection, book)
        if previous is None:
            await store.insert(connection, book, business_date, actor)
            return business_date, business_date
        if business_date < previous:
            raise BusinessDateNotLaterError(business_date=previous.isoformat())
        if business_date > previous:
            await store.move(connection, book, previous, business_date, actor)
            if tell is not None:
                await tell(connection, previous, business_date)
    return previous, business_date
