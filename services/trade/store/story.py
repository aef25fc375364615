"""Stories and facts: what operators and audits read of the schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.db.pool import Pool
from common.db.types import Record
from common.errors import FieldInvalidError
from services.trade.store.rows import QUERIES

_FACTS: Final = {
    "order": "list_order_facts",
    "refund": "list_refund_facts",
    "unfinished": "list_unfinished",
}


class StoryStore:
    """Reads across the schema `trade`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find_story(self, subject_id: str, tenant_id: str, mode: str) -> str:
        """Return the story of an id or a merchant's number; empty when it is not known."""
        async with self._pool.acquire() as connection:
            found = await connection.fetchval(QUERIES["find_story"], subject_id, tenant_id, mode)
        return found or ""

    async def list_story(self, biz_trace_id: str, after: str, limit: int) -> Sequence[Record]:
        """Return what happened after a place of the story, oldest first.

        Columns: at, kind, subject, summary, details, place.
        """
        async with self._pool.acquire() as connection:
            return await connection.fetch(QUERIES["list_story"], biz_trace_id, after, limit)

    async def list_facts(
        self, kind: str, tenant_id: str, mode: str, after: str, limit: int
    ) -> Sequence[Record]:
        """Return facts whose keys come after one; columns: key, facts.

        Raises:
            FieldInvalidError: no such kind of fact.
        """
        if kind not in _FACTS:
            raise FieldInvalidError(field="kind", rule=f"must be one of {', '.join(_FACTS)}")
        async with self._pool.acquire() as connection:
            return await connection.fetch(QUERIES[_FACTS[kind]], tenant_id, mode, after, limit)
