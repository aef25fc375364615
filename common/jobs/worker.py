"""Running due jobs: claimed in batches under a lease, each outside of any transaction.

At least once: a worker that dies leaves a lease that runs out, and another runs the job again. The
end of a run is noted only under the lease it was claimed by, so a worker that was stalled cannot
undo what its successor has noted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from opentelemetry import trace

from common import context
from common.backoff import Backoff
from common.clock import Clock
from common.coalescer import Coalescer
from common.context import ActorType, Mode, Principal
from common.db.failures import classify
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Record
from common.jobs.job import Again, GiveUp, Job, JobKind, Result
from common.jobs.jobs import Jobs
from common.telemetry import metrics
from common.telemetry.propagation import parse_traceparent

_QUERIES: Final = load_queries("common.jobs")
_TRACER: Final = trace.get_tracer("paymesh")
_log = logging.getLogger(__name__)

_RUNS = metrics.counter("paymesh.jobs.runs", "Runs of jobs, by kind and end")
# How long jobs written by other processes, without a notification, may wait beyond their time.
_POLL_SECONDS: Final = 0.5
_ERROR_LENGTH_MAX: Final = 500
# Leases are renewed often enough that two renewals may fail.
_RENEWALS_PER_LEASE: Final = 3
# What a stopping worker gives its runs to end by themselves.
_DRAIN_SECONDS: Final = 5.0
_PRUNE_EVERY_SECONDS: Final = 600.0
_PRUNE_ROWS_MAX: Final = 5000


@dataclass(frozen=True, slots=True)
class _End:
    """How one run ended."""

    job: Job
    state: str
    is_fresh: bool
    after_seconds: float
    error: str
    now: datetime | None


class Worker:
    """Runs the jobs of one schema; `run` until cancelled.

    Args:
        pool: the schema.
        jobs: what wakes the worker.
        kinds: what to do with jobs of each kind; those of other kinds are left alone.
        clock: whose time decides what is due; None for the database's.
        concurrency: most runs at a time.
        service: the caller's name in the circumstances of a run.
        keep_days: how long jobs that ended well are kept for their stories.
    """

    def __init__(
        self,
        pool: Pool,
        jobs: Jobs,
        kinds: Mapping[str, JobKind],
        *,
        clock: Clock | None = None,
        concurrency: int = 16,
        service: str = "",
        keep_days: int = 30,
    ) -> None:
        self._pool = pool
        self._jobs = jobs
        self._kinds = dict(kinds)
        self._clock = clock
        self._concurrency = concurrency
        self._service = service
        self._keep_days = keep_days
        self._running: dict[asyncio.Task[None], Job] = {}
        self._backoff = Backoff()
        self._prune_due_at = 0.0
        # Ends of runs that come close together are noted in one statement.
        self._ends: Coalescer[_End, None] = Coalescer(
            self._write_ends, classify=classify, read_back=_forget_ends, name="jobs"
        )

    async def run(self) -> None:
        """Run jobs when they are due, until cancelled; then lets the runs under way end."""
        failures = 0
        renewing = asyncio.create_task(self._renew(), name="job leases")
        try:
            while True:
                self._jobs.forget_notifications()
                try:
                    claimed = await self._claim_into_tasks()
                    pause = await self._find_pause() if claimed == 0 else 0.0
                except Exception as error:  # noqa: BLE001 - jobs wait until things are well again
                    failures += 1
                    pause = self._backoff.pause(failures)
                    _log.warning("worker %s: %r; again in %.1f s", self._pool.schema, error, pause)
                    await asyncio.sleep(pause)
                    continue
                failures = 0
                await self._wait(pause)
        finally:
            await self._drain()
            renewing.cancel()

    async def _renew(self) -> None:
        """Keep the leases of what runs here: a run that takes long is not taken over."""
        if not self._kinds:
            return
        pause = min(kind.lease_seconds for kind in self._kinds.values()) / _RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(pause)
            running = list(self._running.values())
            if not running:
                continue
            try:
                async with self._pool.acquire() as connection:
                    await connection.fetch(
                        _QUERIES["renew_jobs"],
                        [job.job_id for job in running],
                        [job.lease for job in running],
                        [self._kinds[job.kind].lease_seconds for job in running],
                    )
            except Exception as error:  # noqa: BLE001 - another may run them too, which is harmless
                _log.warning("worker %s: leases not renewed: %r", self._pool.schema, error)

    async def run_due(self, now: datetime | None = None) -> int:
        """Run everything that is due at `now`, and what that makes due; return how many runs.

        For tests and simulations that own the time: run times and leases count from `now`.
        """
        total = 0
        while jobs := await self._claim(self._concurrency, now):
            await asyncio.gather(*(self._run_one(job, now) for job in jobs))
            total += len(jobs)
        return total

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()

    async def _claim_into_tasks(self) -> int:
        free = self._concurrency - len(self._running)
        if free <= 0:
            return 0
        now = self._now()
        jobs = await self._claim(free, now)
        for job in jobs:
            task = asyncio.create_task(self._run_one(job, None), name=f"job {job.kind}")
            self._running[task] = job
            task.add_done_callback(self._running.pop)
        return len(jobs)

    async def _claim(self, limit: int, now: datetime | None) -> list[Job]:
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["claim_jobs"],
                now,
                list(self._kinds),
                [kind.lease_seconds for kind in self._kinds.values()],
                limit,
            )
        # The statement answers in no order: those that have waited longest begin.
        rows.sort(key=lambda row: (row["run_at"], row["job_id"]))
        return [_job_from_row(row) for row in rows]

    async def _find_pause(self) -> float:
        """How long there is surely nothing to do, as far as this process knows."""
        if len(self._running) >= self._concurrency:
            return _POLL_SECONDS
        await self._prune()
        if self._clock is not None:
            return _POLL_SECONDS
        async with self._pool.acquire() as connection:
            seconds = await connection.fetchval(_QUERIES["find_next_run"], list(self._kinds))
        return _POLL_SECONDS if seconds is None else min(max(seconds, 0.0), _POLL_SECONDS)

    async def _wait(self, pause: float) -> None:
        """Wait for a notification, the pause, or room for another run."""
        if len(self._running) >= self._concurrency:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        elif pause > 0:
            await self._jobs.wait(pause)

    async def _run_one(self, job: Job, now: datetime | None) -> None:
        kind = self._kinds[job.kind]
        if kind.attempts_max is not None and job.attempts > kind.attempts_max:
            # The last attempt's worker died before it could say so.
            result: Result = GiveUp(job.last_error or "its worker died each time")
        else:
            try:
                result = await self._handle(job, kind)
            except asyncio.CancelledError:
                await asyncio.shield(self._note(job, Again(0.0, "its worker stopped"), kind, now))
                raise
        await self._note(job, result, kind, now)

    async def _handle(self, job: Job, kind: JobKind) -> Result:
        span = parse_traceparent(job.traceparent)
        with (
            context.bound(job.call(self._service)),
            _TRACER.start_as_current_span(
                f"job {job.kind}", links=[] if span is None else [trace.Link(span)]
            ),
        ):
            try:
                async with asyncio.timeout(kind.run_seconds_max):
                    return await kind.handler(job)
            except Exception as error:  # noqa: BLE001 - a failed run is tried again
                _log.warning("job %s of %s failed: %r", job.kind, job.key, error, exc_info=error)
                return Again(reason=f"{type(error).__name__}: {error}")

    async def _note(self, job: Job, result: Result, kind: JobKind, now: datetime | None) -> None:
        state, error, after, is_fresh = "DONE", "", 0.0, False
        if isinstance(result, GiveUp):
            state, error = "PARKED", result.reason
        elif isinstance(result, Again):
            error, is_fresh = result.reason, result.is_fresh
            is_last = kind.attempts_max is not None and job.attempts >= kind.attempts_max
            state = "PARKED" if is_last and not is_fresh else "OPEN"
            after = (
                kind.backoff.pause(job.attempts)
                if result.after_seconds is None
                else result.after_seconds
            )
        _RUNS.add(1, {"kind": job.kind, "end": type(result).__name__})
        if state == "PARKED":
            _log.error("job %s of %s is parked: %s", job.kind, job.key, error)
        end = _End(job, state, is_fresh, after, error[:_ERROR_LENGTH_MAX], now or self._now())
        try:
            await self._ends.submit(end)
        except Exception as failure:  # noqa: BLE001 - the lease runs out and it runs again
            _log.warning("job %s of %s: its end was lost: %r", job.kind, job.key, failure)
        if state == "OPEN" and after <= 0:
            self._jobs.notify()

    async def _write_ends(self, ends: Sequence[_End]) -> list[None]:
        async with self._pool.acquire() as connection:
            noted = await connection.fetch(
                _QUERIES["finish_jobs"],
                ends[0].now,
                [end.job.job_id for end in ends],
                [end.job.lease for end in ends],
                [end.state for end in ends],
                [end.is_fresh for end in ends],
                [end.after_seconds for end in ends],
                [end.error for end in ends],
            )
        if any(row["is_hastened"] for row in noted):
            self._jobs.notify()
        return [None] * len(ends)

    async def _prune(self) -> None:
        loop_now = asyncio.get_running_loop().time()
        if loop_now < self._prune_due_at:
            return
        self._prune_due_at = loop_now + _PRUNE_EVERY_SECONDS
        async with self._pool.acquire() as connection:
            await connection.fetch(
                _QUERIES["prune_jobs"], self._now(), self._keep_days, _PRUNE_ROWS_MAX
            )

    async def _drain(self) -> None:
        running = set(self._running)
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_DRAIN_SECONDS)


async def _forget_ends(ends: Sequence[_End]) -> list[None]:
    """Nothing to read back: noting an end twice is noting it once, under its lease."""
    return [None] * len(ends)


def _job_from_row(row: Record) -> Job:
    actor_type, _, actor_id = row["actor"].partition(":")
    return Job(
        job_id=row["job_id"],
        kind=row["kind"],
        key=row["key"],
        run_at=row["run_at"],
        principal=Principal(
            tenant_id=row["tenant_id"],
            mode=Mode(row["mode"]),
            merchant_id=row["merchant_id"],
            actor_type=ActorType(actor_type),
            actor_id=actor_id,
            on_behalf_of=row["on_behalf_of"],
        ),
        biz_trace_id=row["biz_trace_id"],
        payload=row["payload"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
        attempts=row["attempts"],
        lease=row["lease"],
        last_error=row["last_error"],
        created_at=row["created_at"],
    )
