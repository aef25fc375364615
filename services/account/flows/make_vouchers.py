"""Make the vouchers of the journal: a chunk of whole transactions, exactly once.

The journal is followed by the ids of its transactions. Below the oldest transaction that is still
running nothing can appear any more, so a cursor that stays below it misses nothing, whatever the
order of commits. It moves in the transaction that writes the vouchers, under a row lock: whoever
dies, and how many try, each transfer gets one voucher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import asyncpg

from common.db.pool import Pool
from services.account.store.vouchers import VoucherStore

CHUNK_TRANSFERS: Final = 5000
"""About the transfers of one transaction: a quarter of a second, and nobody waits for long."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one call came."""

    made: int
    """Vouchers that it made."""
    cursor: int
    """Last transaction whose vouchers are made."""
    has_more: bool
    """Whether another call is needed: for transactions up to the wanted one, else for any that have
    ended. With nothing made, an older transaction is still running or another process is at it."""


async def make_vouchers(
    pool: Pool,
    store: VoucherStore,
    book: int,
    *,
    up_to: int | None = None,
    chunk_transfers: int = CHUNK_TRANSFERS,
) -> Progress:
    """Make the vouchers of the next whole transactions of a book's journal.

    `up_to` is a transaction that the caller waits for, inclusive: then this waits for another maker
    instead of leaving the work to it. It is no end: what is complete beyond it may be made too.
    """
    has_months = False
    while True:
        dates = None
        try:
            async with pool.transaction() as connection:
                await store.plan_by_key(connection)
                if up_to is None:
                    cursor = await store.try_lock_cursor(connection, book)
                else:
                    cursor = await store.lock_cursor(connection, book)
                if cursor is None:
                    return Progress(0, await store.read_cursor(connection, book) or 0, True)
                if up_to is not None and cursor >= up_to:
                    return Progress(0, cursor, False)
                chunk = await store.find_chunk(connection, book, cursor, chunk_transfers)
                made = 0
                if chunk.until > cursor:
                    try:
                        made = await store.make(connection, book, cursor, chunk.until)
                    except asyncpg.CheckViolationError:
                        dates = cursor, chunk.until
                        raise
                    await store.move_cursor(connection, book, chunk.until)
                    cursor = chunk.until
        except asyncpg.CheckViolationError:
            if dates is None or has_months:
                raise
            # Another maker of this process may have made them since: then they are tried once more.
            has_months = not await _make_months(pool, store, book, *dates)
        else:
            wanted = chunk.complete if up_to is None else up_to
            return Progress(made, cursor, cursor < wanted)


async def _make_months(pool: Pool, store: VoucherStore, book: int, after: int, until: int) -> bool:
    """Make the months of journal rows; return whether any was not known to be there."""
    async with pool.acquire() as connection:
        dates = await store.list_dates(connection, book, after, until)
    return await store.months.make(dates)
