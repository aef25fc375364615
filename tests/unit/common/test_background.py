"""Work beside the calls: queues first, restarted when it fails, stopped though a cancel is lost."""

from __future__ import annotations

import asyncio

import pytest

from common import background
from common.background import BackgroundRunner
from common.backoff import Backoff
from common.cancellation import heed_cancellation
from common.events.broker import Broker
from common.service import Background, Service


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_RESTART", Backoff(first_seconds=0.01, longest_seconds=0.01))


async def test_work_begins_though_the_broker_is_away_and_telling_once_queues_are_declared() -> None:
    order: list[str] = []
    worked, told = asyncio.Event(), asyncio.Event()
    broker = Broker("amqp://nobody.invalid")

    async def declare() -> None:
        await worked.wait()
        order.append("declare")
        if len(order) < 4:
            raise ConnectionError("broker away")

    async def work() -> None:
        order.append("work")
        worked.set()
        await asyncio.Event().wait()

    async def tell() -> None:
        await broker.may_tell.wait()
        order.append("tell")
        told.set()
        await asyncio.Event().wait()

    runner = BackgroundRunner(
        [Service("a", background=[tell, work]), Service("b", declare=[declare])],
        stop_seconds=5,
        broker=broker,
    )
    runner.start()
    await asyncio.wait_for(told.wait(), 5)
    await runner.stop()
    assert order == ["work", "declare", "declare", "declare", "tell"]


async def test_failing_work_is_restarted_and_its_neighbour_is_not() -> None:
    begun = {"bad": 0, "good": 0}
    enough = asyncio.Event()

    async def bad() -> None:
        begun["bad"] += 1
        if begun["bad"] >= 3:
            enough.set()
        raise ZeroDivisionError

    async def good() -> None:
        begun["good"] += 1
        await asyncio.Event().wait()

    runner = BackgroundRunner([Service("a", background=[bad, good])], stop_seconds=5)
    runner.start()
    await asyncio.wait_for(enough.wait(), 5)
    await runner.stop()
    assert begun["bad"] >= 3
    assert begun["good"] == 1


async def test_last_words_are_said_by_all_though_one_fails() -> None:
    said: list[str] = []

    async def run() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise ConnectionError

    async def say() -> None:
        said.append("words")

    works = [Background("one", run, flush=fail), Background("two", run, flush=say)]
    runner = BackgroundRunner([Service("a", background=works)], stop_seconds=5)
    runner.start()
    await runner.stop()
    await runner.flush()
    assert said == ["words"]


async def test_a_cancellation_that_a_library_swallowed_is_heeded_at_the_next_round() -> None:
    async def loop() -> None:
        while True:
            heed_cancellation()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
