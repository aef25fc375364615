"""The rules of the coalescer, each with a flush that the test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from common.backoff import Backoff
from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import Failure
from common.errors import InternalError, Outcome, OverloadedError, UnavailableError

_LIMITS = CoalescerLimits(
    batch_weight_max=8,
    queue_weight_max=16,
    tries_max=4,
    backoff=Backoff(first_seconds=0.0001, longest_seconds=0.0001),
)


class DeadlockError(Exception):
    """Retry the whole batch."""


class PoisonError(Exception):
    """Some item is to blame."""


class LostError(Exception):
    """The connection went away."""


class Flushes:
    """Answers an item with its double; fails as told; can be stopped at a gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.committed: dict[int, int] = {}
        self.failures: list[Exception] = []
        self.loses_after_commit = False
        self.poison: set[int] = set()
        self.read_backs = 0
        self.read_back_failures = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def flush(self, items: Sequence[int]) -> list[int]:
        """Write and answer a batch."""
        self.batches.append(list(items))
        self.begun.set()
        await self.gate.wait()
        if self.failures:
            error = self.failures.pop(0)
            if isinstance(error, LostError) and self.loses_after_commit:
                self.committed.update({item: item * 2 for item in items})
            raise error
        if self.poison & set(items):
            raise PoisonError
        for item in items:
            assert item not in self.committed
            self.committed[item] = item * 2
        return [item * 2 for item in items]

    async def read_back(self, items: Sequence[int]) -> list[int | None]:
        """Answer what was written."""
        self.read_backs += 1
        if self.read_back_failures:
            self.read_back_failures -= 1
            raise LostError
        return [self.committed.get(item) for item in items]

    def coalescer(self, limits: CoalescerLimits = _LIMITS) -> Coalescer[int, int]:
        """A coalescer in front of this."""
        return Coalescer(
            self.flush,
            classify=_classify,
            read_back=self.read_back,
            weigh=lambda item: 5 if item >= 1000 else 1,
            limits=limits,
        )


def _classify(error: Exception) -> Failure | None:
    return {
        DeadlockError: Failure.RETRY_WHOLE,
        PoisonError: Failure.SPLIT,
        LostError: Failure.READ_BACK,
    }.get(type(error))


@pytest.fixture
async def flushes() -> Flushes:
    return Flushes()


async def _start(coalescer: Coalescer[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_submitting_alone_flushes_at_once_without_a_timer(flushes: Flushes) -> None:
    assert await flushes.coalescer().submit(1) == 2
    assert flushes.batches == [[1]]


async def test_submitting_while_a_flush_is_under_way_gathers_the_next_batch(
    flushes: Flushes,
) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    first = await _start(coalescer, 1)
    await flushes.begun.wait()
    rest = await _start(coalescer, 2, 3, 4)
    flushes.gate.set()
    assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]
    assert flushes.batches == [[1], [2, 3, 4]]


async def test_submitting_more_than_a_batch_holds_keeps_order_and_never_tears_an_item(
    flushes: Flushes,
) -> None:
    coalescer = flushes.coalescer()
    tasks = await _start(coalescer, 1, 2, 1001, 3, 1002, 4)
    assert await asyncio.gather(*tasks) == [2, 4, 2002, 6, 2004, 8]
    assert flushes.batches == [[1, 2, 1001, 3], [1002, 4]]


async def test_submitting_beyond_the_queue_is_refused_and_begins_nothing(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    first = await _start(coalescer, 0)
    await flushes.begun.wait()
    waiting = await _start(coalescer, *range(1, 17))
    with pytest.raises(OverloadedError) as refused:
        await coalescer.submit(99)
    assert refused.value.outcome == Outcome.NOT_EXECUTED
    with pytest.raises(OverloadedError):
        await coalescer.submit_all([99])
    flushes.gate.set()
    await asyncio.gather(*first, *waiting)
    assert 99 not in flushes.committed
    assert coalescer.waiting_weight == 0


async def test_submitting_an_item_heavier_than_a_batch_is_refused(flushes: Flushes) -> None:
    coalescer = flushes.coalescer(CoalescerLimits(batch_weight_max=4))
    with pytest.raises(OverloadedError):
        await coalescer.submit(1000)


async def test_cancelling_a_queued_item_takes_it_out(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    first = await _start(coalescer, 1)
    await flushes.begun.wait()
    second, third = await _start(coalescer, 2, 3)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert coalescer.waiting_weight == 1
    flushes.gate.set()
    assert await third == 6
    assert await first[0] == 2
    assert flushes.batches == [[1], [3]]


async def test_items_that_were_given_up_do_not_pile_up_behind_a_flush_that_hangs(
    flushes: Flushes,
) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    first = await _start(coalescer, 0)
    await flushes.begun.wait()
    kept = await _start(coalescer, 1)
    for number in range(2, 5_002):
        (one,) = await _start(coalescer, number)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
    assert len(coalescer._queue) < 2_500
    flushes.gate.set()
    assert await first[0] == 0
    assert await kept[0] == 2
    assert flushes.batches == [[0], [1]]


async def test_cancelling_an_item_in_flight_lets_the_flush_go_on(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    first, second = await _start(coalescer, 1, 2)
    await flushes.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    flushes.gate.set()
    assert await second == 4
    assert flushes.committed == {1: 2, 2: 4}


async def test_flushing_a_poisoned_item_sets_it_alone_aside(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.poison = {3, 6}
    results = await asyncio.gather(
        *(coalescer.submit(item) for item in range(8)), return_exceptions=True
    )
    for item, result in enumerate(results):
        if item in flushes.poison:
            assert isinstance(result, InternalError)
            assert result.outcome == Outcome.NOT_EXECUTED
        else:
            assert result == item * 2


async def test_flushing_after_an_unknown_exception_counts_as_poison(flushes: Flushes) -> None:
    flushes.failures = [ValueError("ours")]
    with pytest.raises(InternalError) as failed:
        await flushes.coalescer().submit(1)
    assert isinstance(failed.value.__cause__, ValueError)


async def test_flushing_after_a_deadlock_tries_the_whole_batch_again(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.failures = [DeadlockError(), DeadlockError()]
    tasks = await _start(coalescer, 1, 2)
    assert await asyncio.gather(*tasks) == [2, 4]
    assert flushes.batches == [[1, 2]] * 3
    assert flushes.read_backs == 0


async def test_flushing_into_endless_deadlocks_ends_as_not_executed(flushes: Flushes) -> None:
    flushes.failures = [DeadlockError() for _ in range(4)]
    with pytest.raises(UnavailableError) as failed:
        await flushes.coalescer().submit(1)
    assert failed.value.outcome == Outcome.NOT_EXECUTED


async def test_losing_the_answer_of_a_commit_answers_from_the_rows(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.failures = [LostError()]
    flushes.loses_after_commit = True
    flushes.read_back_failures = 1
    tasks = await _start(coalescer, 1, 2)
    assert await asyncio.gather(*tasks) == [2, 4]
    assert flushes.batches == [[1, 2]]
    assert flushes.read_backs == 2


async def test_losing_the_connection_before_the_commit_flushes_what_has_no_row(
    flushes: Flushes,
) -> None:
    coalescer = flushes.coalescer()
    flushes.failures = [LostError()]
    flushes.committed[2] = 4  # as if an earlier copy of it had been booked
    tasks = await _start(coalescer, 1, 2, 3)
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert flushes.batches == [[1, 2, 3], [1, 3]]


async def test_losing_the_server_for_good_ends_as_unknown(flushes: Flushes) -> None:
    flushes.failures = [LostError()]
    flushes.read_back_failures = 99
    with pytest.raises(UnavailableError) as failed:
        await flushes.coalescer().submit(1)
    assert failed.value.outcome == Outcome.UNKNOWN


async def test_submitting_many_answers_each_by_itself(flushes: Flushes) -> None:
    flushes.poison = {2}
    answers = await flushes.coalescer().submit_all(list(range(10)))
    assert isinstance(answers[2], InternalError)
    assert [a for a in answers if not isinstance(a, InternalError)] == [
        item * 2 for item in range(10) if item != 2
    ]


async def test_cancelling_many_takes_out_those_that_wait(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    task = asyncio.create_task(coalescer.submit_all(list(range(10))))
    await flushes.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    flushes.gate.set()
    await coalescer.drain()
    assert sorted(flushes.committed) == list(range(8))


async def test_draining_answers_what_was_taken_and_refuses_the_rest(flushes: Flushes) -> None:
    coalescer = flushes.coalescer()
    flushes.gate.clear()
    tasks = await _start(coalescer, *range(12))
    await flushes.begun.wait()
    drained = asyncio.create_task(coalescer.drain())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError) as refused:
        await coalescer.submit(99)
    assert refused.value.outcome == Outcome.NOT_EXECUTED
    assert not drained.done()
    flushes.gate.set()
    assert await asyncio.gather(*tasks) == [item * 2 for item in range(12)]
    await drained


async def test_answering_with_too_few_answers_fails_the_batch_loudly() -> None:
    async def flush(_: Sequence[int]) -> list[int]:
        return []

    async def read_back(items: Sequence[int]) -> list[int | None]:
        return [None for _ in items]

    coalescer: Coalescer[int, int] = Coalescer(flush, classify=_classify, read_back=read_back)
    with pytest.raises(InternalError) as failed:
        await coalescer.submit(1)
    assert failed.value.outcome == Outcome.UNKNOWN
