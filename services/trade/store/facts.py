"""Facts: what audits read of the schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.db.pool import Pool
from common.db.types import Record
from services.trade.store.rows import QUERIES

FACT_QUERIES: Final = {
    "order": "list_order_facts",
    "refund": "list_refund_facts",
    "unfinished": "list_unfinished",
}


class FactStore:
    """Reads across the schema `trade`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_facts(
        self, kind: str, tenant_id: str, mode: str, after: str, limit: int
    ) -> Sequence[Record]:
        """Return facts whose keys come after one; columns: key, facts."""
        async with self._pool.acquire() as connection:
            return await connection.fetch(
                QUERIES[FACT_QUERIES[kind]], tenant_id, mode, after, limit
            )
