"""An event loop without a machine below it: time is a number, and chance says who runs next.

Time stands still while anything can run and then jumps to the next timer, so an hour of waiting
costs nothing. Nothing here waits for a real socket: whoever needs one (PostgreSQL) does so on a
thread of its own, and the loop stands still until it has answered. So a run depends on its seed
alone: same seed, same order, same digest.

**What may be reordered.** Everything a program can see of a loop's order is the order of its
callbacks. They are of two kinds here:

- *Plain callbacks* (a future's callbacks, due timers, what `call_soon` was given) run first in,
  first out, and before any step of a task. asyncio's own machinery is made of them, and code may
  rely on `call_soon` keeping its order, on a future's callbacks running in the order in which they
  were added, and on a done callback having run once a later timer does.
- *Steps of tasks* are what the seed chooses among: one of the first few that wait (`WINDOW`), and
  none is passed over for ever (`PASSES_MAX`). A task has at most one step waiting, so its own order
  never changes; between tasks no order was ever promised, except that a task which was made
  earlier usually begins earlier. That is the kind of luck that this loop takes away.

**Whose callback it is** says the context in which it runs (`OWNER`); the callbacks of an owner that
has died are dropped unrun. That is how a process is cut off at an await (see process.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

WINDOW: Final = 6
"""Among so many steps the next one is chosen."""

PASSES_MAX: Final = 24
"""So often the oldest step may be passed over."""

_ROUNDING: Final = 1e-6
"""Of a millisecond: what the arithmetic of floats may add to an instant."""

EPOCH: Final = datetime(2031, 3, 3, 1, 0, tzinfo=UTC)
"""When every simulation begins: later than any real clock that its rows may meet."""


class Owner(Protocol):
    """To whom callbacks belong."""

    is_alive: bool

    def took(self, task: asyncio.Task[Any]) -> None:
        """Note a task that was made in the owner's name."""
        ...


OWNER: ContextVar[Owner | None] = ContextVar("OWNER", default=None)
"""In whose name code runs; None for the world itself, which never dies."""


class StalledError(Exception):
    """Nothing can run and nothing is waited for: the simulation would sleep for ever."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop whose time and order come from a seed."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._seconds = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._steps: deque[asyncio.Handle] = deque()
        self._passes = 0
        self._digest = hashlib.sha256()
        self.steps_run = 0
        """Steps of tasks so far."""
        self.between_steps: Callable[[], None] = _nothing
        """Called before each step of a task; what it raises ends the run."""
        self.notes: list[str] | None = None
        """What happened, in words; None unless someone wants to read it."""
        self.set_task_factory(_make_task)
        self.set_exception_handler(_ignore)

    # What is written down.

    def note(self, what: str) -> None:
        """Write down what happened: it is part of the run's digest."""
        self._digest.update(f"{self._seconds:.6f} {what}\n".encode())
        if self.notes is not None:
            self.notes.append(f"{self._seconds:12.3f}  {what}")

    def digest(self) -> str:
        """Return what two runs of one seed have in common."""
        return self._digest.hexdigest()[:16]

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Return the seconds since the simulation began."""
        return self._seconds

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        is_step = isinstance(getattr(callback, "__self__", None), asyncio.Task)
        (self._steps if is_step else self._ready).append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]  # as loosely typed as the handles below
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at an instant; those of one instant in the order in which they were made.

        Instants are whole milliseconds, as a real loop's timers have a resolution too: so nothing
        hangs on how a database or a float rounds the last microsecond.
        """
        when = math.ceil(when * 1000 - _ROUNDING) / 1000
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back after some seconds."""
        return self.call_at(self._seconds + max(0.0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are thrown away when their time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    def _run_once(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        if not ready and not self._steps:
            self._advance()
        if ready:
            self._run(ready.popleft())
        elif self._steps:
            self.between_steps()
            if self._steps:
                self._run(self._choose())

    def _advance(self) -> None:
        """Jump to the next timer, and let everything be ready that is due then."""
        timers, ready = self._timers, self._ready  # type: ignore[attr-defined]
        while timers and _is_void(timers[0][2]):
            heapq.heappop(timers)
        if not timers:
            raise StalledError("nothing is ready and nothing is waited for")
        self._seconds = max(self._seconds, timers[0][0])
        while timers and timers[0][0] <= self._seconds:
            ready.append(heapq.heappop(timers)[2])

    def _choose(self) -> asyncio.Handle:
        steps = self._steps
        self.steps_run += 1
        if len(steps) == 1 or self._passes >= PASSES_MAX:
            self._passes = 0
            return steps.popleft()
        place = self._chance.randrange(min(len(steps), WINDOW))
        self._passes = self._passes + 1 if place else 0
        handle = steps[place]
        del steps[place]
        return handle

    def _run(self, handle: asyncio.Handle) -> None:
        if not _is_void(handle):
            handle._run()


class SimulatedClock:
    """`common.clock.Clock` on a simulated loop."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        """Return the wall time."""
        return EPOCH + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._loop.time()


def _is_void(handle: asyncio.Handle) -> bool:
    if handle.cancelled():
        return True
    owner: Owner | None = handle._context.get(OWNER)  # type: ignore[attr-defined]
    return owner is not None and not owner.is_alive


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.took(task)
    return task


def _ignore(_loop: asyncio.AbstractEventLoop, _what: dict[str, Any]) -> None:
    """An exception that nobody fetched is nobody's: what it did to the rows is what counts."""


def _nothing() -> None:
    pass
