"""The day cut: the business date of every book moves forward, never while a posting runs.

The date moves at once; what is left of the day that ended (vouchers, proof) is done by the closer
(`close_day`). Each book is cut in a transaction of its own, so a cut that dies leaves books whole,
and running it again goes on with the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Final

import asyncpg

from common.backoff import Backoff
from common.db.pool import Pool
from common.db.types import Connection
from common.errors import Outcome, Retry, UnavailableError
from services.account.domain.days import Day
from services.account.errors import BusinessDateNotLaterError
from services.account.store.days import BusinessDayStore, DayStore

Tell = Callable[[Connection, int, date, date], Awaitable[None]]
"""Tells of a move (the book, the date before, the date now) in its transaction."""

DrainAhead = Callable[[int], Awaitable[object]]
"""Drains a book's buffers before its date is locked, so that little is left to do while it is."""


# Postings take milliseconds; one that hangs is ended by the server.
_TRIES: Final = 8
_POSTINGS: Final = Backoff(first_seconds=0.1, longest_seconds=2.0)


async def open_book(
    pool: Pool, store: DayStore, book: int, business_date: date, actor: str
) -> date:
    """Give a book its first business day where it has none; return the date that it has."""
    async with pool.transaction() as connection:
        await store.insert(connection, book, business_date, actor)
    opened = await store.read(book)
    return business_date if opened is None else opened


async def cut_book(
    pool: Pool,
    store: DayStore,
    book: int,
    business_date: date,
    actor: str,
    tell: Tell | None = None,
) -> tuple[date, date]:
    """Move the business date of one book forward; return the date before and the one now.

    The same date again changes nothing, so that a day cut is safe to run twice. Postings that are
    under way are waited for: what they book keeps the old date, all that comes after has the new.
    Credits that still wait in buffers are drained under the same lock, so that the entries of the
    day are complete when it ends.

    Raises:
        BusinessDateNotLaterError: it would go back.
        UnavailableError: postings hang, and the date could not be locked; it did not move.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return await _cut(pool, store, book, business_date, actor, tell)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_POSTINGS.pause(attempt))
    raise UnavailableError(
        target="business date", outcome=Outcome.NOT_EXECUTED, retry=Retry.AFTER_DELAY
    )


async def _cut(
    pool: Pool, store: DayStore, book: int, business_date: date, actor: str, tell: Tell | None
) -> tuple[date, date]:
    async with pool.transaction() as connection:
        previous = await store.lock(connection, book)
        if previous is None:
            await store.insert(connection, book, business_date, actor)
            return business_date, business_date
        if business_date < previous:
            raise BusinessDateNotLaterError(business_date=previous.isoformat())
        if business_date > previous:
            await store.drain(connection, book)
            await store.move(connection, book, previous, business_date, actor)
            if tell is not None:
                await tell(connection, book, previous, business_date)
    return previous, business_date


async def cut_day(
    pool: Pool,
    store: DayStore,
    days: BusinessDayStore,
    business_date: date,
    actor: str,
    tell: Tell | None = None,
    drain_ahead: DrainAhead | None = None,
) -> list[Day]:
    """Move every book to a business date; return the days that ended by it.

    Raises:
        BusinessDateNotLaterError: a book would go back; none was moved.
        UnavailableError: postings hang; where its outcome is unknown, some books were moved, and
            the closer moves the rest.
    """
    current = await days.list_books()
    furthest = max(current.values(), default=business_date)
    if business_date < furthest:
        raise BusinessDateNotLaterError(business_date=furthest.isoformat())
    ended: list[Day] = []
    for book, before in current.items():
        if before == business_date:
            continue
        if drain_ahead is not None:
            await drain_ahead(book)
        try:
            previous, now = await cut_book(pool, store, book, business_date, actor, tell)
        except UnavailableError as error:
            if not ended:
                raise
            raise UnavailableError(
                target="business date", outcome=Outcome.UNKNOWN, retry=Retry.AFTER_DELAY
            ) from error
        if previous != now:
            ended.append((book, previous))
    return ended
