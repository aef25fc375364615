"""The loop under the simulation: time that jumps, steps in any order, callbacks in theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from tests.simulation.faults import seeded
from tests.simulation.loop import EPOCH, SimulatedClock, SimulatedLoop, StalledError
from tests.simulation.process import Process, ProcessDiedError, check_alive


def run(work: Callable[[SimulatedLoop], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    """Run a coroutine on a loop of its own."""
    with closing(SimulatedLoop(seeded(seed, "order"))) as loop:
        return loop.run_until_complete(work(loop))


def test_sleeping_an_hour_takes_no_time_but_virtual_time() -> None:
    async def work(loop: SimulatedLoop) -> tuple[float, float]:
        await asyncio.sleep(3600)
        clock = SimulatedClock(loop)
        return clock.monotonic(), (clock.now() - EPOCH).total_seconds()

    assert run(work) == (3600.0, 3600.0)


def test_waiting_for_nothing_is_told_as_stalled() -> None:
    async def work(loop: SimulatedLoop) -> None:
        task = asyncio.current_task()
        assert task is not None
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await loop.create_future()

    with pytest.raises(StalledError):
        run(work)


async def _order_of_tasks(_: SimulatedLoop) -> list[int]:
    ran: list[int] = []

    async def note(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            ran.append(number)

    await asyncio.gather(*(note(number) for number in range(6)))
    return ran


def test_tasks_run_in_an_order_that_the_seed_chooses() -> None:
    orders = [run(_order_of_tasks, seed) for seed in range(8)]
    assert orders == [run(_order_of_tasks, seed) for seed in range(8)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_no_step_is_passed_over_for_ever() -> None:
    async def work(loop: SimulatedLoop) -> int:
        busy = [asyncio.ensure_future(_spin()) for _ in range(6)]
        before = loop.steps_run
        await asyncio.sleep(0)
        waited = loop.steps_run - before
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        return waited

    assert all(run(work, seed) < 60 for seed in range(50))


async def _spin() -> None:
    for _ in range(10_000):
        await asyncio.sleep(0)


def test_callbacks_keep_their_order_and_come_before_steps() -> None:
    async def work(loop: SimulatedLoop) -> list[str]:
        ran: list[str] = []
        future = loop.create_future()
        for number in range(5):
            loop.call_soon(ran.append, f"soon {number}")
            future.add_done_callback(partial(_note_done, ran, number))
        future.set_result(None)
        await asyncio.sleep(0)
        return ran

    wanted = [f"soon {number}" for number in range(5)] + [f"done {number}" for number in range(5)]
    assert all(run(work, seed) == wanted for seed in range(10))


def _note_done(ran: list[str], number: int, _: asyncio.Future[None]) -> None:
    ran.append(f"done {number}")


def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_made() -> None:
    async def work(loop: SimulatedLoop) -> list[int]:
        ran: list[int] = []
        for number in (3, 1, 2):
            loop.call_at(5.0, ran.append, number)
        loop.call_at(4.0, ran.append, 0)
        await asyncio.sleep(6)
        return ran

    assert run(work) == [0, 3, 1, 2]


async def _with_timeout(loop: SimulatedLoop) -> bool:
    try:
        async with asyncio.timeout(2):
            await asyncio.sleep(3)
    except TimeoutError:
        return loop.time() == 2.0
    return False


def test_timeouts_cancel_at_their_virtual_time() -> None:
    assert run(_with_timeout)


# Processes.


def test_a_killed_process_does_nothing_more() -> None:
    ran: list[str] = []

    async def live(step: Callable[[], Awaitable[None]]) -> None:
        try:
            ran.append("begins")
            await asyncio.sleep(1)
            ran.append("never")
        finally:
            ran.append("falls")
            await step()
            ran.append("never")

    async def reach_out() -> None:
        check_alive()
        ran.append("never")

    async def work(loop: SimulatedLoop) -> None:
        process = Process(loop, "victim", 1)
        process.spawn(live(reach_out), "life")
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5)

    run(work)
    assert ran == ["begins", "falls"]


def test_tasks_and_timers_of_a_process_die_with_it() -> None:
    ran: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        ran.append("child")

    async def parent(loop: SimulatedLoop) -> None:
        loop.call_later(1, ran.append, "timer")
        await asyncio.gather(child(), asyncio.create_task(child()))

    async def work(loop: SimulatedLoop) -> None:
        process = Process(loop, "victim", 1)
        process.spawn(parent(loop), "parent")
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5)

    run(work)
    assert ran == []


def test_a_process_that_dies_at_an_await_is_cut_off_there() -> None:
    ran: list[str] = []

    async def work(loop: SimulatedLoop) -> None:
        process = Process(loop, "victim", 1)

        async def live() -> None:
            ran.append("before")
            await process.die_here()

        process.spawn(live(), "life")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert process.is_doomed
        process.kill()
        with pytest.raises(ProcessDiedError):
            process.new_context().run(check_alive)

    run(work)
    assert ran == ["before"]


def test_a_kill_tells_whoever_is_connected() -> None:
    told: list[str] = []

    async def work(loop: SimulatedLoop) -> None:
        process = Process(loop, "victim", 1)
        process.at_death.append(lambda: told.append("gone"))
        process.kill()

    run(work)
    assert told == ["gone"]
