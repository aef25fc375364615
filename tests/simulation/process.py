"""A process of the mesh that can be killed at any await, and what is left of it: its rows.

A process is an owner of tasks (loop.py). Killing it closes every coroutine where it stands and
drops its callbacks, so that nothing of it runs again: no store call, no call to others, no answer.
`finally` blocks run, as Python has no way to leave them out, but what they try to reach is away:
the pools and channels of a dead process answer with `ProcessDiedError` without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, NoReturn

from tests.simulation.loop import OWNER, SimulatedLoop

_CLOSES_MAX: Final = 50


class ProcessDiedError(ConnectionError):
    """Whoever gets this has died: the world is out of reach."""


class Process:
    """One life of a service's process."""

    def __init__(self, loop: SimulatedLoop, service: str, life: int) -> None:
        self.loop = loop
        self.service = service
        self.life = life
        """The how-manieth process of the service this is."""
        self.is_alive = True
        self.is_doomed = False
        """It is to be killed before the next step is run."""
        self.at_death: list[Callable[[], None]] = []
        """What the world does when it has died: connections break."""
        # Kept in the order in which they were made, so that they die in that order.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.context = Context()
        """Code that runs in it runs in the process's name."""
        self.context.run(OWNER.set, self)

    def __str__(self) -> str:
        return f"{self.service}#{self.life}"

    def took(self, task: asyncio.Task[Any]) -> None:
        """Note a task of the process."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work in the process."""
        return self.loop.create_task(work, name=name, context=self.new_context())

    def new_context(self) -> Context:
        """Return an empty context in the process's name."""
        context = Context()
        context.run(OWNER.set, self)
        return context

    async def die_here(self) -> NoReturn:
        """Be killed at this very await; never returns."""
        self.is_doomed = True
        await self.loop.create_future()
        raise ProcessDiedError("a killed process ran on")

    def kill(self) -> None:
        """Cut every task off where it stands."""
        self.is_alive = False
        self.is_doomed = False
        while self._tasks:
            task = next(iter(self._tasks))
            del self._tasks[task]
            self._close(task)
        for tell in self.at_death:
            tell()

    def _close(self, task: asyncio.Task[Any]) -> None:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine = task.get_coro()
        if coroutine is None or task.done():
            return
        for _ in range(_CLOSES_MAX):
            try:
                self.new_context().run(coroutine.close)
            except RuntimeError:
                continue  # a `finally` wanted to wait for something: it never comes
            except BaseException:  # noqa: BLE001 - last words of the dead are heard by nobody
                return
            return


def own_process() -> Process | None:
    """Return the process in whose name the caller runs; None for the world."""
    owner = OWNER.get()
    return owner if isinstance(owner, Process) else None


def check_alive() -> Process | None:
    """Return the caller's process; raises ProcessDiedError when it has died."""
    process = own_process()
    if process is not None and not process.is_alive:
        raise ProcessDiedError(str(process))
    return process
