"""Runs the service processes of one machine and keeps them running.

For `paymesh up`, the demo and the system tests: every service is a process of its own, started
when it answers its readiness check, restarted when it dies, stopped in order. On Kubernetes the
cluster does this instead. Like the servers, the services are children of a guardian, so that they
end with this process however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from common.embedded.processes import Command, Guardian, Process, ProcessStartError

_log = logging.getLogger(__name__)

_READY_POLL_SECONDS = 0.05
# A child that dies at once is not started again in a tight loop, and not for ever.
_BACK_OFF_FIRST_SECONDS = 0.1
_BACK_OFF_MAX_SECONDS = 5.0
_RESTARTS_IN_A_ROW_MAX = 10
# After this long in service, a death counts as the first one again.
_STABLE_SECONDS = 10.0
# These concern a process with all its helpers; a request to end is passed on by the process itself.
_TREE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})
_ENDING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT})


class Restart(enum.Enum):
    """When a child that ended is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on failure"
    NEVER = "never"


@dataclass(frozen=True)
class Child:
    """A command to keep running.

    `env` is added to this process's environment. `ready` answers whether the child does its work
    yet (an OSError means no); without it, a started child is ready. Children of a lower `stage` are
    ready before those of the next are started, and are stopped after them.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_timeout_seconds: float = 30.0
    restart: Restart = Restart.ALWAYS
    stop_timeout_seconds: float = 15.0
    stage: int = 0


class _Slot:
    """What is known of one child now."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: Process | None = None
        self.ready = asyncio.Event()
        self.restarts = 0
        self.started_again = asyncio.Event()
        self.deaths_in_a_row = 0
        # Set by a signal of ours: the death that follows says nothing about the child.
        self.was_signalled = False
        self.watch: asyncio.Task[None] | None = None


class Supervisor:
    """Children under one guardian; an async context manager.

    Each child's output goes to `log_folder/NAME.log`, its pid file to `run_folder`.
    """

    def __init__(self, children: Sequence[Child], *, run_folder: Path, log_folder: Path) -> None:
        self._slots = {child.name: _Slot(child) for child in children}
        if len(self._slots) != len(children):
            raise ValueError("two children have the same name")
        self._log_folder = log_folder
        self._guardian = Guardian(run_folder, name="services-guardian")
        self._failed: asyncio.Event = asyncio.Event()
        self._failure = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all children, stage by stage, and wait until they are ready.

        Raises:
            ProcessStartError: one did not become ready; all are stopped again.
        """
        self._log_folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._guardian.start()
            for stage in self._stages():
                await self._start_stage(stage)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all children, the last stage first: SIGTERM, then SIGKILL; twice is once."""
        for stage in reversed(self._stages()):
            await asyncio.gather(*(self._stop_child(slot) for slot in stage))
        await self._guardian.close()

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a child, as a fault would; what it ends is started again by its policy.

        A death that was asked for counts neither as a crash nor towards giving the child up.
        """
        slot = self._slots[name]
        if slot.process is not None:
            slot.was_signalled = slot.was_signalled or number in _ENDING_SIGNALS
            await slot.process.signal(number, tree=number in _TREE_SIGNALS)

    def forgive(self) -> None:
        """Forget the deaths so far: what they depended on was away, and is back."""
        for slot in self._slots.values():
            slot.deaths_in_a_row = 0

    def pid(self, name: str) -> int | None:
        """The child's pid; None while it is not running."""
        process = self._slots[name].process
        return None if process is None or process.status is not None else process.pid

    def restarts(self, name: str) -> int:
        """How often the child was started again."""
        return self._slots[name].restarts

    async def wait_ready(self, name: str) -> None:
        """Wait until the child does its work."""
        await self._slots[name].ready.wait()

    async def wait_restarted(self, name: str, restarts_before: int) -> None:
        """Wait until the child was started again since it had `restarts_before`, and is ready."""
        slot = self._slots[name]
        while slot.restarts <= restarts_before:
            slot.started_again.clear()
            await slot.started_again.wait()
        await slot.ready.wait()

    async def wait_failed(self) -> str:
        """Wait until a child has been given up; returns what happened."""
        await self._failed.wait()
        return self._failure

    def _stages(self) -> list[list[_Slot]]:
        slots = self._slots.values()
        return [
            [slot for slot in slots if slot.child.stage == stage]
            for stage in sorted({slot.child.stage for slot in slots})
        ]

    async def _start_stage(self, stage: list[_Slot]) -> None:
        starting = [asyncio.create_task(self._start_child(slot)) for slot in stage]
        try:
            done, _ = await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for each in starting:
                each.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
        for each in done:
            each.result()
        for slot in stage:
            slot.watch = asyncio.create_task(self._watch(slot))

    async def _start_child(self, slot: _Slot) -> None:
        child = slot.child
        log = self._log_folder / f"{child.name}.log"
        slot.process = await self._guardian.spawn(
            Command(
                name=child.name,
                argv=child.argv,
                log=log,
                env={**os.environ, **child.env},
                cwd=child.cwd,
            )
        )
        try:
            async with asyncio.timeout(child.ready_timeout_seconds):
                while not await _is_ready(child):
                    if slot.process.status is not None:
                        raise ProcessStartError(
                            f"{child.name} ended with status {slot.process.status} before it was "
                            f"ready:\n{_tail(log)}"
                        )
                    await asyncio.sleep(_READY_POLL_SECONDS)
        except TimeoutError:
            await slot.process.kill()
            raise ProcessStartError(
                f"{child.name} was not ready in {child.ready_timeout_seconds:g} s:\n{_tail(log)}"
            ) from None
        slot.ready.set()

    async def _watch(self, slot: _Slot) -> None:
        """Start the child again whenever it ends, by its policy."""
        child = slot.child
        reason = ""
        ready_at = time.monotonic()
        while True:
            if slot.ready.is_set() and slot.process is not None:
                status = await slot.process.wait()
                slot.ready.clear()
                reason = f"{child.name} ended with status {status}"
                if child.restart is Restart.NEVER or (
                    child.restart is Restart.ON_FAILURE and status == 0
                ):
                    return
                if time.monotonic() - ready_at > _STABLE_SECONDS:
                    slot.deaths_in_a_row = 0
            level = logging.WARNING
            if slot.was_signalled:
                slot.was_signalled = False
                slot.deaths_in_a_row = 0
                level = logging.INFO
            if slot.deaths_in_a_row == _RESTARTS_IN_A_ROW_MAX or not self._guardian.is_running():
                self._give_up(reason)
                return
            delay = min(_BACK_OFF_FIRST_SECONDS * 2**slot.deaths_in_a_row, _BACK_OFF_MAX_SECONDS)
            _log.log(level, "%s; starting it again in %.1f s", reason, delay)
            await asyncio.sleep(delay)
            slot.deaths_in_a_row += 1
            slot.restarts += 1
            slot.started_again.set()
            try:
                await self._start_child(slot)
                ready_at = time.monotonic()
            except ProcessStartError as error:
                reason = str(error)

    def _give_up(self, reason: str) -> None:
        _log.error("%s; given up", reason)
        if not self._failed.is_set():
            self._failure = reason
            self._failed.set()

    async def _stop_child(self, slot: _Slot) -> None:
        if slot.watch is not None:
            slot.watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await slot.watch
            slot.watch = None
        slot.ready.clear()
        if slot.process is not None:
            await slot.process.stop(slot.child.stop_timeout_seconds)


async def _is_ready(child: Child) -> bool:
    if child.ready is None:
        return True
    try:
        return await child.ready()
    except OSError:
        return False


def _tail(log: Path, characters: int = 2000) -> str:
    """The end of a log: what a process said last is mostly why it ended."""
    try:
        return log.read_text(errors="replace")[-characters:]
    except FileNotFoundError:
        return ""
