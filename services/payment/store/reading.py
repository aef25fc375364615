"""What others read: lists for audits, and the pool that stories are told from."""

from __future__ import annotations

from common.db.pool import Pool
from common.db.types import Record
from services.payment.store.rows import QUERIES


class ReadingStore:
    """Reads of the schema `payment` that no flow needs."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_rows(self, query: str, after: str, limit: int) -> list[Record]:
        """Return a page of one of the audit lists (`list_payment_facts` …) after a key."""
        async with self._pool.acquire() as connection:
            return list(await connection.fetch(QUERIES[query], after, limit))
