"""Starting and ending child processes from asyncio, through a guardian.

The guardian (see `guardian`) is the parent of them all; this is the asking side. Python's own
subprocess transport is not used, because its children would outlive a kill -9 of this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.embedded import process_table

_REPOSITORY = Path(__file__).resolve().parents[2]


class ProcessStartError(Exception):
    """A process could not be started, or ended before it was ready."""


@dataclass(frozen=True)
class Command:
    """A program to run.

    `env` is its whole environment, `log` the file that gets both outputs (appended),
    `stop_signal` what asks it to end by itself.
    """

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class Process:
    """A started process."""

    def __init__(self, guardian: Guardian, command: Command, pid: int) -> None:
        self._guardian = guardian
        self.command = command
        self.pid = pid
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def status(self) -> int | None:
        """Exit code, minus the signal's number when a signal ended it, None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait for its end; returns the status."""
        return await asyncio.shield(self._ended)

    async def signal(self, number: signal.Signals, *, tree: bool = False) -> None:
        """Signal the process (as `tree`, everything below it too); nothing when it has ended.

        Returns when the signal has been sent, not when it has worked.
        """
        if not self._ended.done():
            await self._guardian.signal(self.pid, number, tree=tree)

    async def stop(self, timeout_seconds: float) -> int:
        """Ask it to end, wake it if it is stopped, and kill it when the time is over."""
        await self.signal(self.command.stop_signal)
        await self.signal(signal.SIGCONT, tree=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                return await self.wait()
        return await self.kill()

    async def kill(self) -> int:
        """End it and everything below it at once, with SIGKILL."""
        await self.signal(signal.SIGKILL, tree=True)
        return await self.wait()

    def ended(self, status: int) -> None:
        """Note the end (called by the guardian's reader)."""
        if not self._ended.done():
            self._ended.set_result(status)


class Guardian:
    """The asking side of a guardian process; `run_folder` holds its pid files.

    `name` tells the guardians of one run folder apart; it ends in "guardian".
    """

    def __init__(self, run_folder: Path, name: str = "guardian") -> None:
        self._run_folder = run_folder
        self._name = name
        self._mark = f"{run_folder.resolve()}/{name}/"
        self._popen: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._spawning: dict[int, tuple[Command, asyncio.Future[Process]]] = {}
        self._signalling: dict[int, asyncio.Future[None]] = {}
        self._processes: dict[int, Process] = {}

    async def start(self) -> None:
        """Start the guardian process."""
        self._run_folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs, (self._run_folder / f"{self._name}.log").open("ab") as log:
            # -S: the standard library is enough, and the start takes 15 ms instead of 40.
            self._popen = subprocess.Popen(  # noqa: ASYNC220, S603 - short, and vfork is safe here
                [
                    *(sys.executable, "-S", "-m", "common.embedded.guardian"),
                    *(str(os.getpid()), str(self._run_folder), self._name),
                ],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                cwd=_REPOSITORY,
                env={"PYTHONPATH": str(_REPOSITORY), "PATH": os.environ.get("PATH", "")},
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reader_task = asyncio.create_task(self._read(reader))

    def is_running(self) -> bool:
        """Whether the guardian can be asked for anything."""
        return self._reader_task is not None and not self._reader_task.done()

    async def spawn(self, command: Command) -> Process:
        """Start a program.

        Raises:
            ProcessStartError: it cannot be executed, or the guardian is gone.
        """
        request_id = next(self._ids)
        future: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._spawning[request_id] = (command, future)
        if not self.is_running():
            raise ProcessStartError(f"{command.name}: the guardian process is not running")
        self._send(
            {
                "do": "spawn",
                "id": request_id,
                "name": command.name,
                "argv": list(command.argv),
                "env": {**command.env, process_table.MARK: self._mark},
                "cwd": None if command.cwd is None else str(command.cwd),
                "log": str(command.log),
                "stop_signal": command.stop_signal,
            }
        )
        return await future

    async def signal(self, pid: int, number: signal.Signals, *, tree: bool) -> None:
        """Signal a process that was spawned here; one that has ended is passed over."""
        if not self.is_running():
            return  # it has ended everything already
        request_id = next(self._ids)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signalling[request_id] = future
        self._send({"do": "signal", "id": request_id, "pid": pid, "number": number, "tree": tree})
        await future

    def _send(self, message: Mapping[str, object]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """End everything that still runs, and the guardian."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._popen is not None:
            await asyncio.to_thread(self._popen.wait)
            self._popen = None
        if self._reader_task is not None:
            self._reader_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader_task
            self._reader_task = None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._handle(json.loads(line))
        except OSError:
            pass
        finally:
            self._guardian_ended()

    def _handle(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "exited":
            process = self._processes.pop(message["pid"], None)
            if process is not None:
                process.ended(message["status"])
        elif event == "signalled":
            signalled = self._signalling.pop(message["id"], None)
            if signalled is not None and not signalled.done():
                signalled.set_result(None)
        elif event == "refused":
            command, future = self._spawning.pop(message["id"])
            if not future.done():
                future.set_exception(ProcessStartError(f"{command.name}: {message['reason']}"))
        elif event == "spawned":
            command, future = self._spawning.pop(message["id"])
            process = Process(self, command, message["pid"])
            self._processes[process.pid] = process
            if not future.done():
                future.set_result(process)
            else:  # whoever asked was cancelled meanwhile
                kill = {"do": "signal", "id": 0, "pid": process.pid, "tree": True}
                self._send({**kill, "number": signal.SIGKILL})

    def _guardian_ended(self) -> None:
        """End what a killed guardian left, and tell everyone who waits."""
        for process in list(self._processes.values()):
            identity = process_table.read_pid_file(self._run_folder / f"{process.command.name}.pid")
            if identity is not None and identity.pid == process.pid:
                process_table.signal_tree(process.pid, signal.SIGKILL)
            process.ended(-signal.SIGKILL)
        self._processes.clear()
        if self._writer is not None:  # not closed by us, so not in good order
            for stray in process_table.marked(self._mark):
                stray.send(signal.SIGKILL)
        for command, future in self._spawning.values():
            if not future.done():
                future.set_exception(ProcessStartError(f"{command.name}: the guardian ended"))
        self._spawning.clear()
        for signalled in self._signalling.values():
            if not signalled.done():
                signalled.set_result(None)
        self._signalling.clear()
