"""Ending what a broken run left: `python3 -m common.embedded.leftovers` is `make stop`.

Works from the pid files, and signals a process only when its start time is the one noted, so a
number that the system has given to another program meanwhile is left in peace. What lost its parent
before it was noted is known by the mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from common.embedded import process_table

# A run drains its calls and stops its servers in this time; a guardian needs five seconds.
_OWNER_SECONDS = 30.0
_GUARDIAN_SECONDS = 8.0


def end_leftovers(run_folder: Path) -> list[str]:
    """End every process noted in a run folder, the guardian first; returns the names ended.

    Blocking, up to about eight seconds. The caller holds the instance, so none of it is in use.
    """
    ended: list[str] = []
    for path in sorted(run_folder.glob("*guardian.pid"), reverse=True):  # services before servers
        guardian = process_table.read_pid_file(path)
        if guardian is not None and guardian.send(signal.SIGTERM):
            # It ends everything below it in its own good order.
            process_table.wait_gone(guardian, _GUARDIAN_SECONDS)
            ended.append(path.stem)
    for path in sorted(run_folder.glob("*.pid")):
        identity = process_table.read_pid_file(path)
        if identity is not None and identity.pid != os.getpid() and path.stem != "owner":
            process_table.signal_tree(identity.pid, signal.SIGKILL)
            process_table.wait_gone(identity, _GUARDIAN_SECONDS)
            ended.append(path.stem)
        path.unlink(missing_ok=True)
    for stray in process_table.marked(f"{run_folder.resolve()}/"):
        stray.send(signal.SIGKILL)
        ended.append(f"process {stray.pid}")
    return ended


def stop_instance(folder: Path) -> list[str]:
    """End a run with all that it started: the run itself first, which stops its own in order."""
    ended: list[str] = []
    owner = process_table.read_pid_file(folder / "run/owner.pid")
    if owner is not None and owner.pid != os.getpid() and owner.send(signal.SIGTERM):
        if not process_table.wait_gone(owner, _OWNER_SECONDS):
            owner.send(signal.SIGKILL)
        ended.append(f"process {owner.pid}")
    return ended + end_leftovers(folder / "run")


def main() -> int:
    """End all runs of this checkout and say which."""
    local_folder = Path(__file__).resolve().parents[2] / ".local"
    for run_folder in sorted(local_folder.glob("*/run")):
        with contextlib.suppress(FileNotFoundError):
            ended = stop_instance(run_folder.parent)
            if ended:
                sys.stdout.write(f"{run_folder.parent.name}: ended {', '.join(ended)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
