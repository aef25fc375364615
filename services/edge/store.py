"""The rows of the edge: refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.db.pool import Pool
from common.db.queries import load_queries

_QUERIES: Final = load_queries("services.edge")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused before it reached a service."""

    request_id: str
    """As its caller was told."""
    route: str
    """HTTP method and route, without anything that the caller wrote."""
    reason: str
    merchant_id: str
    """Empty unless the request proved whose it is."""
    refused_at: datetime


class EdgeStore:
    """Refusals in PostgreSQL."""

    def __init__(self, pool: Pool, tenant_id: str) -> None:
        self._pool = pool
        self._tenant_id = tenant_id

    async def add_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Write refusals; those that are there already are left alone."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _QUERIES["add_refusals"],
                [one.refused_at for one in refusals],
                [one.request_id for one in refusals],
                [one.route for one in refusals],
                [one.reason for one in refusals],
                [one.merchant_id for one in refusals],
                self._tenant_id,
            )

    async def list_refusals(
        self, tenant_id: str, before_at: datetime, before_id: str, limit: int
    ) -> list[Refusal]:
        """Return refusals, newest first, from before a place in that order."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["list_refusals"], tenant_id, before_at, before_id, limit
            )
        return [Refusal(**dict(row.items())) for row in rows]

    async def find_refusal(self, tenant_id: str, request_id: str) -> Refusal | None:
        """Return the refusal of one request."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_refusal"], request_id, tenant_id)
        return None if row is None else Refusal(**dict(row.items()))
