"""A job runs at its time, at least once, whatever dies; what cannot be done is seen by a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from common import context
from common.backoff import Backoff
from common.clock import SystemClock
from common.context import ActorType, Mode, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.ids import IdFactory
from common.jobs.job import Again, Done, GiveUp, Job, JobKind, NewJob, Result
from common.jobs.jobs import Jobs
from common.jobs.worker import Worker

IDS = IdFactory(SystemClock())
START = datetime(2030, 1, 1, tzinfo=UTC)
PRINCIPAL = Principal(
    mode=Mode.TEST, merchant_id="mer_1", actor_type=ActorType.USER, actor_id="usr:1"
)
QUICK = Backoff(first_seconds=10, longest_seconds=100, factor=2, spread=0)


@pytest.fixture(scope="module")
async def shared_pool(database_url: str) -> AsyncIterator[Pool]:
    url = await prepare_schema(database_url, "jobbing")
    await migrate(url, "jobbing")
    pool = await open_pool(url, SessionSettings("jobbing"))
    yield pool
    await pool.close()


@pytest.fixture
async def pool(shared_pool: Pool) -> Pool:
    async with shared_pool.acquire() as connection:
        await connection.execute("TRUNCATE jobs")
    return shared_pool


def new_job(key: str, run_at: datetime = START, kind: str = "ask") -> NewJob:
    return NewJob(
        job_id=IDS.new("job"),
        kind=kind,
        key=key,
        run_at=run_at,
        principal=PRINCIPAL,
        biz_trace_id=f"biz_{key}",
        payload={"n": 1},
    )


async def add(pool: Pool, *jobs: NewJob) -> set[str]:
    async with pool.transaction() as connection:
        return await Jobs().add(connection, jobs)


async def state_of(pool: Pool, key: str) -> tuple[str, int, str]:
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT state, attempts, last_error FROM jobs WHERE key = $1", key
        )
    assert row is not None
    return row[0], row[1], row[2]


class Answering:
    """A handler that answers from a list, and notes what it was given."""

    def __init__(self, *answers: Result | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[Job] = []

    async def __call__(self, job: Job) -> Result:
        """Give the next answer."""
        self.seen.append(job)
        answer = self.answers.pop(0) if self.answers else Done()
        if isinstance(answer, Exception):
            raise answer
        return answer


def worker_of(pool: Pool, handler: Answering, attempts_max: int | None = 3) -> Worker:
    return Worker(pool, Jobs(), {"ask": JobKind(handler, QUICK, attempts_max)}, service="shop")


async def test_a_job_runs_at_its_time_with_its_circumstances(pool: Pool) -> None:
    seen: list[context.CallContext] = []

    async def look(job: Job) -> Result:
        seen.append(context.current())
        assert job.payload == {"n": 1}
        assert (job.attempts, job.run_at) == (1, START)
        return Done()

    worker = Worker(pool, Jobs(), {"ask": JobKind(look)}, service="shop")
    job = new_job("due")
    await add(pool, job)
    assert await worker.run_due(START - timedelta(milliseconds=1)) == 0
    assert await worker.run_due(START) == 1
    assert await worker.run_due(START + timedelta(days=1)) == 0
    assert await state_of(pool, "due") == ("DONE", 1, "")
    (call,) = seen
    assert (call.principal, call.biz_trace_id, call.causation_id, call.caller) == (
        PRINCIPAL,
        "biz_due",
        job.job_id,
        "shop",
    )


async def test_adding_a_second_open_job_of_a_key_leaves_the_first(pool: Pool) -> None:
    first, second = new_job("same"), new_job("same", START + timedelta(days=1))
    assert await add(pool, first, second, new_job("same", kind="other")) == {
        first.job_id,
        *(await _ids(pool, "other")),
    }
    assert await add(pool, second) == set()
    assert await worker_of(pool, Answering()).run_due(START) == 1
    assert await add(pool, second) == {second.job_id}


async def _ids(pool: Pool, kind: str) -> Sequence[str]:
    async with pool.acquire() as connection:
        rows = await connection.fetch("SELECT job_id FROM jobs WHERE kind = $1", kind)
    return [row["job_id"] for row in rows]


async def test_adding_in_an_undone_transaction_leaves_nothing(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is the case
        async with pool.transaction() as connection:
            await Jobs().add(connection, [new_job("undone")])
            raise ZeroDivisionError
    assert await worker_of(pool, Answering()).run_due(START) == 0


async def test_failing_runs_come_again_at_growing_intervals_and_then_park(pool: Pool) -> None:
    handler = Answering(ValueError("no"), Again(reason="not yet"), Again(1.0, "still not"))
    worker = worker_of(pool, handler)
    await add(pool, new_job("asked"))
    assert await worker.run_due(START) == 1
    assert await state_of(pool, "asked") == ("OPEN", 1, "ValueError: no")
    assert await worker.run_due(START + timedelta(seconds=9)) == 0
    assert await worker.run_due(START + timedelta(seconds=10)) == 1
    assert await worker.run_due(START + timedelta(seconds=29)) == 0
    assert await worker.run_due(START + timedelta(seconds=30)) == 1
    assert await state_of(pool, "asked") == ("PARKED", 3, "still not")
    assert [job.last_error for job in handler.seen] == ["", "ValueError: no", "not yet"]
    async with pool.transaction() as connection:
        (parked,) = await Jobs().list_parked(connection, 10)
        assert parked["last_error"] == "still not"
        assert await Jobs().resume(connection, [parked["job_id"]], START) == {parked["job_id"]}
    assert await worker.run_due(START) == 1
    assert await state_of(pool, "asked") == ("DONE", 1, "")


async def test_giving_up_parks_at_once_and_a_repeating_job_never_does(pool: Pool) -> None:
    await add(pool, new_job("given_up"))
    await worker_of(pool, Answering(GiveUp("hopeless"))).run_due(START)
    assert await state_of(pool, "given_up") == ("PARKED", 1, "hopeless")
    await add(pool, new_job("daily"))
    handler = Answering(*[Again(86400, is_fresh=True)] * 10)
    worker = worker_of(pool, handler)
    for day in range(10):
        assert await worker.run_due(START + timedelta(days=day)) == 1
    assert await state_of(pool, "daily") == ("OPEN", 0, "")


async def test_a_run_whose_worker_died_is_run_again_after_its_lease(pool: Pool) -> None:
    """Cancelled so hard that it cannot even say so: its database is gone for it."""
    await add(pool, new_job("orphan"))
    dead = worker_of(pool, Answering())
    (job,) = await dead._claim(10, START)
    worker = worker_of(pool, Answering())
    assert await worker.run_due(START + timedelta(seconds=9)) == 0
    assert await worker.run_due(START + timedelta(seconds=11)) == 1
    assert await state_of(pool, "orphan") == ("DONE", 2, "")
    await dead._note(job, GiveUp("late words"), dead._kinds["ask"], START)
    assert await state_of(pool, "orphan") == ("DONE", 2, "")


async def test_a_stalled_run_cannot_undo_what_its_successor_notes(pool: Pool) -> None:
    await add(pool, new_job("stalled"))
    stalled = worker_of(pool, Answering())
    (job,) = await stalled._claim(10, START)
    later = START + timedelta(seconds=11)
    await worker_of(pool, Answering(Again(50, "mine"))).run_due(later)
    await stalled._note(job, Done(), stalled._kinds["ask"], later)
    assert await state_of(pool, "stalled") == ("OPEN", 2, "mine")


async def test_a_job_that_kills_its_worker_each_time_is_parked(pool: Pool) -> None:
    await add(pool, new_job("deadly"))
    now = START
    for _ in range(3):
        assert len(await worker_of(pool, Answering())._claim(10, now)) == 1
        now += timedelta(seconds=11)
    handler = Answering()
    await worker_of(pool, handler).run_due(now)
    assert handler.seen == []
    assert await state_of(pool, "deadly") == ("PARKED", 4, "its worker died each time")


async def test_hastening_moves_a_waiting_job_and_runs_a_running_one_once_more(pool: Pool) -> None:
    """News that comes during a run may be newer than what the run has asked."""
    await add(pool, new_job("wait", START + timedelta(days=9)), new_job("runs"))
    handler = Answering()
    worker = worker_of(pool, handler)
    (running,) = await worker._claim(1, START)
    assert running.key == "runs"
    async with pool.transaction() as connection:
        hastened = await Jobs().hasten(connection, "ask", ["wait", "runs", "none"], START)
        assert await Jobs().hasten(connection, "ask", ["wait", "runs"], START) == set()
    assert hastened == {"wait", "runs"}
    assert await worker.run_due(START) == 1
    await worker._note(running, Done(), worker._kinds["ask"], START)
    assert await state_of(pool, "runs") == ("OPEN", 0, "")
    assert await worker.run_due(START) == 1
    assert [job.key for job in handler.seen] == ["wait", "runs"]
    assert await state_of(pool, "runs") == ("DONE", 1, "")


async def test_cancelling_spares_what_runs_and_what_has_news(pool: Pool) -> None:
    later = START + timedelta(days=1)
    await add(pool, new_job("idle", later), new_job("runs"), new_job("has_news", later))
    worker = worker_of(pool, Answering())
    (job,) = await worker._claim(1, START)
    async with pool.transaction() as connection:
        await Jobs().hasten(connection, "ask", ["has_news"], START)
        cancelled = await Jobs().cancel(connection, "ask", ["idle", "runs", "has_news", "none"])
    assert cancelled == {"idle"}
    await worker._note(job, Done(), worker._kinds["ask"], START)
    assert await worker.run_due(START) == 1
    states = [(await state_of(pool, key))[0] for key in ("idle", "runs", "has_news")]
    assert states == ["CANCELLED", "DONE", "DONE"]


async def test_a_long_run_keeps_its_lease(pool: Pool) -> None:
    await add(pool, new_job("long", datetime.now(UTC)))
    runs = 0
    ended = asyncio.Event()

    async def work(_: Job) -> Result:
        nonlocal runs
        runs += 1
        async with pool.acquire() as connection:  # until two leases have passed
            await connection.execute("SELECT pg_sleep(0.6)")
        ended.set()
        return Done()

    jobs = Jobs()
    kinds = {"ask": JobKind(work, lease_seconds=0.3)}
    tasks = [asyncio.create_task(Worker(pool, jobs, kinds).run()) for _ in range(2)]
    await asyncio.wait_for(ended.wait(), 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert runs == 1
    assert (await state_of(pool, "long"))[0] == "DONE"


async def test_many_workers_run_each_job_once(pool: Pool) -> None:
    await add(pool, *(new_job(f"many_{n}", datetime.now(UTC)) for n in range(300)))
    seen: list[str] = []

    async def note(job: Job) -> Result:
        seen.append(job.key)
        await asyncio.sleep(0)
        return Done()

    jobs = Jobs()
    workers = [Worker(pool, jobs, {"ask": JobKind(note)}) for _ in range(4)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]

    async def open_ones() -> int:
        async with pool.acquire() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM jobs WHERE state = 'OPEN'"))

    async with asyncio.timeout(30):
        while await open_ones():  # noqa: ASYNC110 - the server has the state
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(seen) == sorted(f"many_{n}" for n in range(300))


async def test_stopping_lets_runs_end_and_hands_back_those_that_do_not(pool: Pool) -> None:
    await add(pool, new_job("ends", datetime.now(UTC)))
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: Job) -> Result:
        begun.set()
        await may_end.wait()
        return Done()

    worker = Worker(pool, Jobs(), {"ask": JobKind(wait)})
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    await asyncio.gather(task, return_exceptions=True)
    assert (await state_of(pool, "ends"))[0] == "DONE"


async def test_a_run_that_takes_too_long_is_cancelled(pool: Pool) -> None:
    await add(pool, new_job("slow"))

    async def forever(_: Job) -> Result:
        await asyncio.Event().wait()
        return Done()

    kinds = {"ask": JobKind(forever, QUICK, run_seconds_max=0.05)}
    assert await Worker(pool, Jobs(), kinds).run_due(START) == 1
    assert await state_of(pool, "slow") == ("OPEN", 1, "TimeoutError: ")


async def test_pruning_forgets_old_ended_jobs_only(pool: Pool) -> None:
    await add(pool, new_job("old"), new_job("given_up"), new_job("open", START + timedelta(1)))
    worker = worker_of(pool, Answering(Done(), GiveUp("no")))
    await worker.run_due(START)
    async with pool.acquire() as connection:
        await connection.execute("UPDATE jobs SET ended_at = ended_at - interval '9 years'")
    await worker._prune()
    async with pool.acquire() as connection:
        states = await Jobs().count(connection)
    assert sum(states.values()) == 2
