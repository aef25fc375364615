"""Work that runs beside a process's calls: restarted when it fails, stopped with the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from common.backoff import Backoff
from common.cancellation import heed_cancellation
from common.events.broker import Broker
from common.logs import serving
from common.service import Background, Service

_log = logging.getLogger(__name__)

# A relay or consumer mends itself; what gets here is a bug or a server that is away for long.
_RESTART = Backoff(first_seconds=0.5, longest_seconds=30)
# Whoever ran for so long and then failed begins with short pauses again.
_HEALTHY_SECONDS = 60.0


class BackgroundRunner:
    """The background work of the services of one process.

    `broker` is what its relays tell through: they tell nothing before the process's own queues are
    declared. All other work begins at once, because jobs must run though the broker is away.
    """

    def __init__(
        self, services: Sequence[Service], *, stop_seconds: float, broker: Broker | None = None
    ) -> None:
        self._services = services
        self._stop_seconds = stop_seconds
        self._has_queues = broker is None or not broker.is_absent
        self._may_tell = asyncio.Event() if broker is None else broker.may_tell
        self._may_tell.clear()
        self._tasks: list[asyncio.Task[None]] = []

    async def declare(self, patience_seconds: float) -> None:
        """Declare every service's queues, before the process says that it serves.

        Whoever waits for all processes to serve then knows that every queue is there, and no event
        is told before its reader can hear of it. Where the broker is away for longer, calls are
        served all the same, and the queues are declared when it is back.
        """
        try:
            async with asyncio.timeout(patience_seconds):
                await self._declare_all()
        except TimeoutError:
            _log.warning("the broker is away: queues are declared when it is back")

    def start(self) -> None:
        """Run the work of every service, and declare queues where they are not declared yet."""
        self._tasks = [asyncio.create_task(self._run_all(), name="background")]

    async def stop(self) -> None:
        """Cancel all work and wait for its end, bounded; then let it say its last words."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._stop_seconds)
            for task in late:
                _log.error("background work did not stop: %s", task.get_name())

    async def flush(self) -> None:
        """Let each piece of work say its last words, bounded in time."""
        flushes = [
            (work.name, work.flush)
            for service in self._services
            for work in service.background
            if isinstance(work, Background) and work.flush is not None
        ]
        await asyncio.gather(*(self._flush_one(name, flush) for name, flush in flushes))

    async def _flush_one(self, name: str, flush: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(self._stop_seconds):
                await flush()
        except Exception as error:  # noqa: BLE001 - what is left unsaid is in the database
            _log.warning("%s: nothing flushed: %r", name, error)

    async def _declare_all(self) -> None:
        if not self._has_queues:
            _log.info("there is no broker: events wait in the outbox, and none are heard")
        else:
            for service in self._services:
                for declare in service.declare:
                    await _until_done(f"{service.name} queues", declare)
        self._may_tell.set()

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            if not self._may_tell.is_set():
                group.create_task(self._declare_all(), name="queues")
            for service in self._services:
                for number, work in enumerate(service.background):
                    if isinstance(work, Background):
                        name, run = work.name, work.run
                    else:
                        name, run = f"{service.name} background {number}", work
                    group.create_task(_keep_running(service.name, name, run), name=name)


async def _until_done(name: str, work: Callable[[], Awaitable[object]]) -> None:
    failures = 0
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - tried again until the process stops
            heed_cancellation()
            failures += 1
            pause = _RESTART.pause(failures)
            _log.warning("%s: %r; again in %.1f s", name, error, pause)
            await asyncio.sleep(pause)
        else:
            return


async def _keep_running(service: str, name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run until cancelled, again and again."""
    serving.set(service)
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        begun_at = loop.time()
        try:
            await run()
            _log.warning("%s ended by itself", name)
        except Exception:  # noqa: BLE001 - a bug in one must not end the others
            _log.exception("%s failed", name)
        heed_cancellation()
        failures = 1 if loop.time() - begun_at > _HEALTHY_SECONDS else failures + 1
        await asyncio.sleep(_RESTART.pause(failures))
