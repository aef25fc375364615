"""Buffers: credits, booked and not yet posted, of accounts that many processes credit at once.

A batch appends to them under a lock that it shares with other batches (`Lane.share_accounts`). What
waits is neither posted nor available; the drain posts it, in the order in which it was appended.
"""

from __future__ import annotations

from typing import Final

from common.db.conflicts import settle_conflicts
from common.db.pool import Pool
from common.db.types import Connection
from services.account.domain.accounts import SUM_MINOR_MAX
from services.account.store.rows import QUERIES

DRAIN_CREDITS_MAX: Final = 2000
"""Most credits that are drained in one transaction: debits of the account wait for some 20 ms."""


class BufferStore:
    """The table `buffered_credits`, on the side that empties it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_accounts(self, book: int, after_id: str, limit: int) -> list[str]:
        """Read the ids, after one, of accounts in whose buffers something waits."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["list_buffers_after"], book, after_id, limit)
        return [row["account_id"] for row in rows]

    async def drain(self, book: int, account_id: str) -> int:
        """Post the oldest credits of a buffer, in a transaction; return how many there were.

        Below DRAIN_CREDITS_MAX, all that was committed when it began is posted.
        """
        return await settle_conflicts(lambda: self._drain_once(book, account_id))

    async def _drain_once(self, book: int, account_id: str) -> int:
        async with self._pool.transaction() as connection:
            await connection.execute(QUERIES["lock_buffer"], book, account_id)
            return await _move(connection, book, account_id)


async def drain_locked(connection: Connection, book: int, account_id: str) -> int:
    """Post the whole buffer of an account that the caller's transaction has locked."""
    drained = 0
    while True:
        moved = await _move(connection, book, account_id)
        drained += moved
        if moved < DRAIN_CREDITS_MAX:
            return drained


async def _move(connection: Connection, book: int, account_id: str) -> int:
    row = await connection.fetchrow(
        QUERIES["drain_buffer"], book, account_id, DRAIN_CREDITS_MAX, SUM_MINOR_MAX
    )
    return 0 if row is None else int(row["credits"])
