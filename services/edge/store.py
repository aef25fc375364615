"""The rows of the edge: refusals, and the journal of changing requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from common.db.pool import Pool
from common.db.queries import load_queries

_QUERIES: Final = load_queries("services.edge")
_DAYS_AHEAD: Final = 3
# A reader that holds the table for long must not hold up the requests behind it.
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"


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


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What a changing request, or a callback, came to."""

    began_at: datetime
    ended_at: datetime
    http_status: int
    replayed: bool
    """Whether it was answered with what an equal request had been answered before."""
    request_id: str
    """As its caller was told."""
    kind: str
    """`request` or `callback`."""
    route: str
    """HTTP method and route, without anything that the caller wrote."""
    mode: str
    merchant_id: str
    key_id: str
    channel: str
    """Who called back; empty for merchants' requests."""
    idempotency_key_hash: bytes
    """SHA-256 of the Idempotency-Key or, of a callback, of its body; empty for none."""
    noun_id: str
    """What was made, or what the request was about; empty when it is not known."""
    biz_trace_id: str
    """The story; empty when the answer named none."""
    reason: str
    """Why it was refused; empty when it was not."""


_read_columns: Final = attrgetter(*JournalEntry.__slots__)


class EdgeStore:
    """Refusals and the journal in PostgreSQL."""

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

    async def add_entries(self, entries: Sequence[JournalEntry]) -> None:
        """Write entries of the journal; those that are there already are left alone."""
        columns = [list(column) for column in zip(*map(_read_columns, entries), strict=True)]
        async with self._pool.acquire() as connection:
            await connection.execute(_QUERIES["add_entries"], *columns, self._tenant_id)

    async def keep_partitions(self, keep_days: int) -> None:
        """Make the days ahead of the journal, and drop those older than `keep_days`."""
        for query, days in (("make_partitions", _DAYS_AHEAD), ("drop_partitions", keep_days)):
            async with self._pool.transaction() as connection:
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(_QUERIES[query], days)

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool
