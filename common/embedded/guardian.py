"""The parent of every process that a run starts: `python -S -m common.embedded.guardian`.

A parent-death signal reaches children only, not grandchildren, and is cleared when a child changes
its user; an exit handler does not run on kill -9; and forking from a process that runs gRPC is
unsafe. So a run never starts a server or a service itself: it asks this small single-threaded
process over a socket. When the socket closes or the run's process is gone, for whatever reason,
everything below the guardian ends. As "child subreaper" it inherits whatever loses its parent, so
nothing below can slip away by forking twice. Should the guardian itself be killed, its direct
children get SIGKILL from the kernel (parent-death signal) and the run's process ends the rest.

The protocol is one JSON object a line. Requests: `spawn` (id, name, argv, env, cwd, log,
stop_signal), `signal` (id, pid, number, tree). Answers: `spawned` (id, pid), `refused` (id,
reason), `signalled` (id). Events: `exited` (pid, status).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common.embedded import process_table

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# How often the guardian looks whether the run's process still exists, in case somebody inherited
# the other end of the socket and keeps it open.
_ORPHAN_CHECK_SECONDS = 0.5
# How long everything may take to end by itself once the run is gone; then SIGKILL.
_GRACE_SECONDS = 4.0

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _die_with_guardian() -> None:
    """Between fork and exec: the kernel kills the child when the guardian dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Guardian:
    """The loop: requests in, events out, and the end of everything at the end."""

    def __init__(self, connection: socket.socket, owner_pid: int, pid_file: Path) -> None:
        self._connection = connection
        self._owner_pid = owner_pid
        self._pid_file = pid_file
        self._run_folder = pid_file.parent
        self._children: dict[int, tuple[subprocess.Popen[bytes], str, signal.Signals]] = {}
        self._ending = False
        self._buffer = b""

    def run(self) -> None:
        """Serve until the owner is gone or says goodbye, then end every process below."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        process_table.write_pid_file(self._pid_file, os.getpid())
        while not self._ending and os.getppid() == self._owner_pid:
            ready, _, _ = select.select(
                [self._connection, wake_read], [], [], _ORPHAN_CHECK_SECONDS
            )
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    wake_read.recv(4096)
            self._reap()
            if self._connection in ready:
                self._receive()
        self._end_children()
        self._pid_file.unlink(missing_ok=True)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> None:
        try:
            received = self._connection.recv(65536)
        except OSError:
            received = b""
        if not received:
            self._ending = True
            return
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "spawn":
                self._spawn(request)
            elif request["do"] == "signal":
                self._signal(request)

    def _spawn(self, request: dict[str, Any]) -> None:
        try:
            with Path(request["log"]).open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 - argv comes from our own process
                    request["argv"],
                    env=request["env"],
                    cwd=request["cwd"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_guardian,
                )
        except OSError as error:
            self._tell(event="refused", id=request["id"], reason=str(error))
            return
        name = request["name"]
        self._children[child.pid] = (child, name, signal.Signals(request["stop_signal"]))
        process_table.write_pid_file(self._run_folder / f"{name}.pid", child.pid)
        self._tell(event="spawned", id=request["id"], pid=child.pid)

    def _signal(self, request: dict[str, Any]) -> None:
        pid, number = request["pid"], signal.Signals(request["number"])
        if pid in self._children:
            if request["tree"]:
                process_table.signal_tree(pid, number)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._tell(event="signalled", id=request["id"])

    def _reap(self) -> None:
        """Collect what ended, and kill what lost its parent: nobody answers for it any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            known = self._children.pop(pid, None)
            if known is not None:
                child, name, _ = known
                child.returncode = os.waitstatus_to_exitcode(status)
                (self._run_folder / f"{name}.pid").unlink(missing_ok=True)
                self._tell(event="exited", pid=pid, status=child.returncode)
        me = os.getpid()
        for pid, parent in process_table.parents().items():
            if parent == me and pid not in self._children:
                process_table.signal_tree(pid, signal.SIGKILL)

    def _end_children(self) -> None:
        for pid, (_, _, number) in self._children.items():
            for each in (number, signal.SIGCONT):  # a stopped process does not see the first
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, each)
        deadline = time.monotonic() + _GRACE_SECONDS
        while process_table.descendants(os.getpid()):
            self._reap()
            if time.monotonic() > deadline:
                for pid in process_table.descendants(os.getpid()):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._reap()


def main() -> None:
    """Take the socket from standard input; arguments: owner's pid, run folder, own name."""
    connection = socket.socket(fileno=os.dup(0))
    Guardian(connection, int(sys.argv[1]), Path(sys.argv[2], f"{sys.argv[3]}.pid")).run()


if __name__ == "__main__":
    main()
