"""Jobs are written, claimed, ended, hastened and resumed alike on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st

from common.backoff import Backoff
from common.context import ActorType, Mode, Principal
from common.db.pool import Pool
from common.ids import derive
from common.jobs.job import Again, Done, GiveUp, Job, JobKind, NewJob, Result
from common.jobs.jobs import Jobs
from common.jobs.worker import Worker
from tests.conformance.stores.trade_cases import IDS, START
from tests.conformance.stores.twins import Side, Twins, in_order, outcome_of, try_examples

SCHEMA = "trade"
PRINCIPAL = Principal(
    mode=Mode.TEST, merchant_id="mer_1", actor_type=ActorType.USER, actor_id="usr:1"
)
PAUSES = Backoff(first_seconds=7, longest_seconds=100, factor=2, spread=0)
ENDS: dict[str, Result] = {
    "done": Done(),
    "again": Again(5.0, "not yet"),
    "later": Again(),
    "fresh": Again(3.0, is_fresh=True),
    "never": GiveUp("nobody knows"),
}


@dataclass
class JobsSide:
    """Jobs and a worker on one side; what runs come to is set by the case."""

    pool: Pool
    parent: str = field(default_factory=lambda: IDS.new("tst"))
    ends: dict[str, str] = field(default_factory=dict)
    runs: list[tuple[str, int, str]] = field(default_factory=list)
    claimed: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jobs = Jobs()
        kind = JobKind(self._run, backoff=PAUSES, attempts_max=4, lease_seconds=20)
        self.worker = Worker(self.pool, self.jobs, {"ask": kind})

    async def _run(self, job: Job) -> Result:
        self.runs.append((job.key, job.attempts, job.last_error))
        end = self.ends.get(job.key, "done")
        if end == "error":
            raise OSError("lost")
        return ENDS[end]

    def job(self, number: int, key: str, run_at: datetime = START, kind: str = "ask") -> NewJob:
        """A job to be written."""
        return NewJob(
            job_id=derive("job", self.parent, number),
            kind=kind,
            key=key,
            run_at=run_at,
            principal=PRINCIPAL,
            biz_trace_id=f"biz_{key}",
            payload={"n": number, "of": [key]},
        )

    async def add(self, *jobs: NewJob) -> set[str]:
        """Write jobs."""
        async with self.pool.transaction() as connection:
            return await self.jobs.add(connection, jobs, START)

    async def hasten(self, key: str, at: datetime) -> set[str]:
        """Say that there is news."""
        async with self.pool.transaction() as connection:
            return await self.jobs.hasten(connection, "ask", [key], at)

    async def cancel(self, *keys: str) -> set[str]:
        """End open jobs."""
        async with self.pool.transaction() as connection:
            return await self.jobs.cancel(connection, "ask", keys)


@pytest.fixture
def jobs(side: Side) -> JobsSide:
    """Jobs on one side."""
    return JobsSide(side.pool)


async def test_one_job_of_a_kind_and_key_is_open_at_a_time(jobs: JobsSide) -> None:
    first, second, other = jobs.job(1, "a"), jobs.job(2, "a"), jobs.job(3, "a", kind="tell")
    assert await jobs.add(first, second, other, first) == {first.job_id, other.job_id}
    assert await jobs.add(second) == set()
    assert await jobs.worker.run_due(START) == 1
    assert await jobs.add(second) == {second.job_id}
    assert await jobs.add(first) == set()


async def test_due_jobs_run_in_the_order_of_their_times(jobs: JobsSide) -> None:
    times = [START + timedelta(seconds=n) for n in (3, 1, 2, 9)]
    await jobs.add(*(jobs.job(n, str(n), at) for n, at in enumerate(times)))
    claimed = await jobs.worker._claim(2, START + timedelta(seconds=5))
    assert sorted(job.key for job in claimed) == ["1", "2"]
    assert {job.run_at for job in claimed} == {times[1], times[2]}
    assert {(job.attempts, job.lease) for job in claimed} == {(1, 1)}
    assert [job.key for job in await jobs.worker._claim(9, START + timedelta(seconds=5))] == ["0"]
    assert claimed[0].principal == PRINCIPAL
    assert claimed[0].payload["of"] == [claimed[0].key]


async def test_an_end_under_a_lost_lease_is_not_noted(jobs: JobsSide, side: Side) -> None:
    await jobs.add(jobs.job(1, "a"))
    (late,) = await jobs.worker._claim(1, START)
    assert await jobs.worker._claim(1, START + timedelta(seconds=19)) == []
    (taken,) = await jobs.worker._claim(1, START + timedelta(seconds=20))
    assert (taken.attempts, taken.lease) == (2, 2)
    kind = jobs.worker._kinds["ask"]
    await jobs.worker._note(late, Done(), kind, START)
    assert (await side.dump())["jobs"][0]["state"] == "OPEN"
    await jobs.worker._note(taken, Done(), kind, START)
    assert (await side.dump())["jobs"][0]["state"] == "DONE"


async def test_a_job_that_never_ends_is_parked_and_resumed(jobs: JobsSide, side: Side) -> None:
    jobs.ends = {"a": "later", "b": "never"}
    await jobs.add(jobs.job(1, "a"), jobs.job(2, "b"))
    for minutes in range(5):
        await jobs.worker.run_due(START + timedelta(minutes=minutes))
    assert [run for run in jobs.runs if run[0] == "a"] == [("a", n, "") for n in range(1, 5)]
    async with side.pool.acquire() as connection:
        parked = await jobs.jobs.list_parked(connection, 9)
        assert sorted((row["key"], row["last_error"]) for row in parked) == [
            ("a", ""),
            ("b", "nobody knows"),
        ]
        assert await jobs.jobs.count(connection) == {("ask", "PARKED"): 2}
    await jobs.add(jobs.job(3, "b", START + timedelta(days=9)))
    async with side.pool.transaction() as connection:
        ids = [row["job_id"] for row in parked]
        resumed = await jobs.jobs.resume(connection, ids, START + timedelta(hours=1))
    assert resumed == {jobs.job(1, "a").job_id}
    jobs.ends = {}
    assert await jobs.worker.run_due(START + timedelta(hours=1)) == 1
    assert jobs.runs[-1] == ("a", 1, "")


async def test_news_while_a_job_runs_lets_it_run_once_more(jobs: JobsSide, side: Side) -> None:
    await jobs.add(jobs.job(1, "a"), jobs.job(2, "b", START + timedelta(hours=1)))
    (running,) = await jobs.worker._claim(1, START)
    assert await jobs.hasten("a", START) == {"a"}
    assert await jobs.hasten("a", START) == set()
    assert await jobs.hasten("b", START + timedelta(seconds=1)) == {"b"}
    assert await jobs.cancel("a", "b") == set()
    await jobs.worker._note(running, Done(), jobs.worker._kinds["ask"], START)
    assert [row["state"] for row in (await side.dump())["jobs"]] == ["OPEN", "OPEN"]
    assert await jobs.worker.run_due(START + timedelta(seconds=1)) == 2


async def test_news_while_a_job_runs_gives_it_all_its_attempts_again(
    jobs: JobsSide, side: Side
) -> None:
    await jobs.add(jobs.job(1, "a"))
    (running,) = await jobs.worker._claim(1, START)
    await jobs.hasten("a", START)
    await jobs.worker._note(running, Again(50.0), jobs.worker._kinds["ask"], START)
    (row,) = (await side.dump())["jobs"]
    assert (row["attempts"], row["run_at"], row["is_running"]) == (0, START, False)


async def test_open_jobs_are_cancelled(jobs: JobsSide, side: Side) -> None:
    await jobs.add(jobs.job(1, "a"), jobs.job(2, "b"))
    assert await jobs.cancel("a", "z") == {"a"}
    assert await jobs.worker.run_due(START) == 1
    rows = (await side.dump())["jobs"]
    assert {(row["key"], row["state"]) for row in rows} == {("a", "CANCELLED"), ("b", "DONE")}


async def test_jobs_are_written_with_the_change_or_not_at_all(jobs: JobsSide, side: Side) -> None:
    async def write_and_fail() -> None:
        async with side.pool.transaction() as connection:
            await jobs.jobs.add(connection, [jobs.job(1, "a")])
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await write_and_fail()
    assert (await side.dump())["jobs"] == []


KEYS = st.sampled_from("abc")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(KEYS, st.integers(0, 99)), max_size=3)),
        st.tuples(
            st.just("run"),
            st.dictionaries(KEYS, st.sampled_from([*ENDS, "error"]), max_size=4),
        ),
        st.tuples(st.just("claim"), st.none()),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 9), st.sampled_from(list(ENDS)))),
        st.tuples(st.just("hasten"), KEYS),
        st.tuples(st.just("cancel"), st.lists(KEYS, max_size=2)),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 60)),
    ),
    min_size=20,
    max_size=50,
)


class Actor(JobsSide):
    """Does the operations on one side."""

    now: datetime = START
    written: int = 0

    async def do(self, name: str, given: Any) -> Any:
        """Do one; return what it answers."""
        return await getattr(self, f"_{name}")(given)

    async def _add(self, given: Sequence[tuple[str, int]]) -> Any:
        made = []
        for key, seconds in given:
            made.append(self.job(self.written, key, self.now + timedelta(seconds=seconds)))
            self.written += 1
        return await self.add(*made)

    async def _run_due(self, ends: dict[str, str]) -> Any:
        self.ends = ends
        runs = await self.worker.run_due(self.now)
        return runs, in_order(self.runs)

    async def _claim(self, _: None) -> Any:
        claimed = sorted(await self.worker._claim(100, self.now), key=lambda job: job.key)
        self.claimed += claimed
        return claimed

    async def _end(self, given: tuple[int, str]) -> Any:
        place, end = given
        if place < len(self.claimed):
            kind = self.worker._kinds["ask"]
            await self.worker._note(self.claimed[place], ENDS[end], kind, self.now)

    async def _hasten(self, key: str) -> Any:
        return await self.hasten(key, self.now)

    async def _cancel(self, keys: Sequence[str]) -> Any:
        return await self.cancel(*keys)

    async def _resume(self, _: None) -> Any:
        async with self.pool.transaction() as connection:
            parked = await self.jobs.list_parked(connection, 100)
            ids = {row["key"]: row["job_id"] for row in parked}
            return await self.jobs.resume(connection, sorted(ids.values()), self.now)

    async def _wait(self, seconds: int) -> Any:
        self.now += timedelta(seconds=seconds)


async def test_any_operations_leave_the_same_answers_and_rows(twins: Twins) -> None:
    async def compare(operations: list[tuple[str, Any]]) -> None:
        await twins.clear()
        parent = IDS.new("tst")
        actors = [Actor(side.pool, parent) for side in twins.sides]
        for name, given in operations:
            method = "run_due" if name == "run" else name
            real, model = [await outcome_of(actor.do(method, given)) for actor in actors]
            assert without_times(real) == without_times(model), name
        await twins.compare_rows()

    await try_examples(OPERATIONS, compare)


def without_times(answer: Any) -> Any:
    """Leave out of jobs what the server's clock says."""
    if isinstance(answer, list):
        return [replace(one, created_at=START) if isinstance(one, Job) else one for one in answer]
    return answer
