"""The private folder of one run: its lock, its passwords, its ports.

`make test` and `make demo` at the same time must not share servers, so each takes a folder of its
own under `.local/` and holds a lock on it for as long as it lives. The kernel drops the lock when
the holder dies, so a lock is never stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path

from common.embedded import leftovers, process_table

LOCAL_FOLDER = Path(__file__).resolve().parents[2] / ".local"
# More than anyone runs side by side; a bound, so that a lock that cannot be had ends in an error.
_SIDE_BY_SIDE_MAX = 64


class InstanceBusyError(Exception):
    """Another process uses the instance."""


class Instance:
    """A locked folder; `free` gives the lock back."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, made when missing, and end what a broken run left in it.

        Raises:
            InstanceBusyError: another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # a server that runs as another user must pass, not read
        self.folder = folder
        self.run_folder = folder / "run"
        self.log_folder = folder / "log"
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InstanceBusyError(
                f"{folder} is in use by another process: wait for it, or end it with `make stop`"
            ) from error
        self.run_folder.mkdir(exist_ok=True)
        self.log_folder.mkdir(exist_ok=True)
        leftovers.end_leftovers(self.run_folder)
        process_table.write_pid_file(self.run_folder / "owner.pid", os.getpid())

    def free(self) -> None:
        """Give the folder back; twice is once."""
        if self._lock >= 0:
            (self.run_folder / "owner.pid").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def wipe(self, *names: str) -> None:
        """Remove the data of earlier runs (folders or files of the instance)."""
        for name in names:
            path = self.folder / name
            if path.is_symlink():
                shutil.rmtree(path.resolve(), ignore_errors=True)
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def password(self) -> str:
        """The password of all servers of the instance: random, made once, readable by its owner."""
        path = self.folder / "password"
        try:
            kept = path.read_text()
        except FileNotFoundError:
            kept = ""
        if not kept:
            kept = secrets.token_urlsafe(24)
            write_private(path, kept)
        return kept

    def recall_ports(self) -> dict[str, int]:
        """The ports of the instance's last run, empty when there was none."""
        try:
            kept = json.loads((self.folder / "ports.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(name): int(port) for name, port in kept.items()}

    def keep_ports(self, ports: dict[str, int]) -> None:
        """Note the ports, so that the next run has the same ones when they are free."""
        write_private(self.folder / "ports.json", json.dumps(ports))


def write_private(path: Path, content: str, mode: int = 0o600) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(content)
    partial.replace(path)


def take(name: str, *, local_folder: Path = LOCAL_FOLDER, side_by_side: bool = False) -> Instance:
    """Take the instance of a name, or, `side_by_side`, the first free of NAME, NAME-2, NAME-3 ….

    Raises:
        InstanceBusyError: another process holds it.
    """
    if not side_by_side:
        return Instance(local_folder / name)
    for number in range(1, _SIDE_BY_SIDE_MAX + 1):
        try:
            return Instance(local_folder / (name if number == 1 else f"{name}-{number}"))
        except InstanceBusyError:
            continue
    raise InstanceBusyError(f"{_SIDE_BY_SIDE_MAX} instances of {name} are in use: try `make stop`")
