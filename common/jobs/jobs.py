"""Writing, hastening, cancelling and resuming jobs, in the caller's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.jobs.job import NewJob

_QUERIES: Final = load_queries("common.jobs")


class Jobs:
    """The jobs of one service."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()

    async def add(
        self, connection: Connection, jobs: Sequence[NewJob], now: datetime | None = None
    ) -> set[str]:
        """Write jobs; return the ids of those that are new.

        A job under whose kind and key another is open, or whose id exists, is left out. Call
        `notify` after the commit when one is due at once.
        """
        if not jobs:
            return set()
        rows = await connection.fetch(
            _QUERIES["add_jobs"],
            [job.job_id for job in jobs],
            [job.kind for job in jobs],
            [job.key for job in jobs],
            [job.run_at for job in jobs],
            [dict(job.payload) for job in jobs],
            [job.principal.tenant_id for job in jobs],
            [job.principal.mode for job in jobs],
            [job.principal.merchant_id for job in jobs],
            [job.principal.actor for job in jobs],
            [job.principal.on_behalf_of for job in jobs],
            [job.biz_trace_id for job in jobs],
            [job.causation_id for job in jobs],
            [job.traceparent for job in jobs],
            now,
        )
        return {row["job_id"] for row in rows}

    async def cancel(self, connection: Connection, kind: str, keys: Sequence[str]) -> set[str]:
        """End open jobs; return the keys of those that it ended.

        One that runs, or that news has hastened, is left to end by itself.
        """
        rows = await connection.fetch(_QUERIES["cancel_jobs"], kind, list(keys))
        return {row["key"] for row in rows}

    async def hasten(
        self, connection: Connection, kind: str, keys: Sequence[str], now: datetime | None = None
    ) -> set[str]:
        """Say that there is news: open jobs are due now, one that runs is run once more after it.

        Returns the keys of those that did not know yet.
        """
        rows = await connection.fetch(_QUERIES["hasten_jobs"], kind, list(keys), now)
        return {row["key"] for row in rows}

    async def list_parked(self, connection: Connection, limit: int) -> list[Record]:
        """Return jobs that wait for a person, oldest first.

        Columns: job_id, kind, key, attempts, payload, merchant_id, biz_trace_id, last_error,
        created_at, ended_at.
        """
        return await connection.fetch(_QUERIES["list_parked"], limit)

    async def resume(
        self, connection: Connection, job_ids: Sequence[str], run_at: datetime | None = None
    ) -> set[str]:
        """Let parked jobs run again; return the ids of those that will."""
        rows = await connection.fetch(_QUERIES["resume_jobs"], list(job_ids), run_at)
        return {row["job_id"] for row in rows}

    async def count(self, connection: Connection) -> dict[tuple[str, str], int]:
        """Return how many jobs there are by (kind, state), DONE left out."""
        rows = await connection.fetch(_QUERIES["count_jobs"])
        return {(row["kind"], row["state"]): row["count"] for row in rows}

    def notify(self) -> None:
        """Wake this process's worker: due jobs were committed."""
        self._wake.set()

    async def wait(self, timeout_seconds: float) -> None:
        """Wait until jobs may be due, at most so long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def forget_notifications(self) -> None:
        """Take the wake-ups so far as heard; whoever looks for jobs calls this first."""
        self._wake.clear()
