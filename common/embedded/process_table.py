"""What the kernel knows of processes, read from /proc.

A pid alone is no identity: it may have been given to another program since it was noted. The pid
together with its start time is one, as long as the machine has not booted anew; everything here
that is about to be signalled is held against that identity first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_PROC = Path("/proc")
# In the environment of everything that a guardian starts, and so of what that starts in turn: the
# last trace of where a process belongs when its parent and its guardian have both been killed.
MARK = "PAYMESH_STARTED_BY"


@dataclass(frozen=True)
class Identity:
    """One process and no other.

    `pid` is its number, `started_ticks` its start in clock ticks since boot, `boot_id` the boot.
    """

    pid: int
    started_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return identify(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone or not ours to signal."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def boot_id() -> str:
    """The random name that the kernel gave to this boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on, or None when there is no process."""
    try:
        line = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The second field is the command in brackets and may hold spaces and brackets itself.
    return line.rpartition(")")[2].split()


def identify(pid: int) -> Identity | None:
    """The identity of a running process; None when there is none or it is a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return Identity(pid=pid, started_ticks=int(fields[19]), boot_id=boot_id())


def parents() -> dict[int, int]:
    """Pid of the parent, for every process of the machine that is no zombie."""
    found: dict[int, int] = {}
    with os.scandir(_PROC) as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        fields = _stat(pid)
        if fields is not None and fields[0] not in ("Z", "X"):
            found[pid] = int(fields[1])
    return found


def descendants(pid: int) -> list[int]:
    """Pids of the children of a process, their children and so on; not the process itself."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def marked(prefix: str) -> list[Identity]:
    """The running processes whose mark begins with `prefix`."""
    wanted = f"{MARK}={prefix}".encode()
    found: list[Identity] = []
    for pid in parents():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # it is gone, or somebody else's
            continue
        identity = identify(pid)
        if identity is not None and any(each.startswith(wanted) for each in environment):
            found.append(identity)
    return found


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Signal a process and everything below it; those already gone are passed over.

    The root goes first, so that it cannot start another child after the list was taken.
    """
    below = [pid, *descendants(pid)]
    for each in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, number)


def write_pid_file(path: Path, pid: int) -> None:
    """Note the identity of a running process in a file, whole or not at all."""
    identity = identify(pid)
    if identity is None:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(asdict(identity)))
    partial.replace(path)


def read_pid_file(path: Path) -> Identity | None:
    """The process that a file names, if that very process still runs; else None."""
    try:
        content = json.loads(path.read_text())
        identity = Identity(
            pid=int(content["pid"]),
            started_ticks=int(content["started_ticks"]),
            boot_id=str(content["boot_id"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity if identity.is_alive() else None


def wait_gone(identity: Identity, timeout_seconds: float) -> bool:
    """Wait (blocking) until a process that is not our child has ended; False at the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while identity.is_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
