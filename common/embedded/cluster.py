"""The three servers that paymesh stands on, for one run.

Configured servers (PAYMESH_POSTGRES_URL, PAYMESH_REDIS_URL, PAYMESH_AMQP_URL) win over private
ones, each by itself, except where the run needs to break them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from common.embedded import instances, ports
from common.embedded.instances import Instance
from common.embedded.postgres import Postgres
from common.embedded.processes import Guardian, Process, ProcessStartError
from common.embedded.rabbitmq import Rabbit, RabbitPorts
from common.embedded.valkey import Valkey

ServerName = Literal["postgres", "redis", "amqp"]
ALL: tuple[ServerName, ...] = ("postgres", "redis", "amqp")
_VARIABLES: dict[ServerName, str] = {
    "postgres": "PAYMESH_POSTGRES_URL",
    "redis": "PAYMESH_REDIS_URL",
    "amqp": "PAYMESH_AMQP_URL",
}
_PORT_NAMES = ("postgres", "redis", "amqp", "amqp_distribution", "amqp_mapper", "amqp_tools")
# A port may be taken between its choice and its use; a second time in a row is no accident.
_START_TRIES = 3
_STOP_SECONDS = 20.0


class Servers:
    """Private servers, started together, and their addresses; an async context manager.

    `instance` names the folder under `.local/`. `private` ignores configured addresses. `fresh`
    begins without the data of earlier runs; `temporary` does too, and leaves none behind. `only`
    leaves the other servers out, whose addresses are then empty. `side_by_side` takes NAME-2,
    NAME-3 … when NAME is in use instead of failing.
    """

    def __init__(
        self,
        instance: str = "dev",
        *,
        private: bool = False,
        fresh: bool = False,
        temporary: bool = False,
        only: Collection[ServerName] = ALL,
        side_by_side: bool = False,
        local_folder: Path = instances.LOCAL_FOLDER,
    ) -> None:
        self._name = instance
        self._fresh = fresh or temporary
        self._temporary = temporary
        self._side_by_side = side_by_side
        self._local_folder = local_folder
        self._configured: dict[ServerName, str] = {}
        if not private:
            self._configured = {
                name: os.environ[variable]
                for name, variable in _VARIABLES.items()
                if os.environ.get(variable)
            }
        self._wanted = [name for name in ALL if name in only and name not in self._configured]
        self._instance: Instance | None = None
        self._guardian: Guardian | None = None
        self._servers: dict[ServerName, Postgres | Valkey | Rabbit] = {}

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

    @property
    def postgres_url(self) -> str:
        """PostgreSQL, as a role that may create databases and roles; may be configured."""
        return self._url("postgres")

    @property
    def redis_url(self) -> str:
        """The Redis-protocol server; may be configured."""
        return self._url("redis")

    @property
    def amqp_url(self) -> str:
        """RabbitMQ's default virtual host; may be configured."""
        return self._url("amqp")

    @property
    def environment(self) -> dict[str, str]:
        """The three addresses as the environment variables that services read."""
        return {variable: self._url(name) for name, variable in _VARIABLES.items()}

    @property
    def folder(self) -> Path:
        """The folder of the instance, for data and logs of the same run."""
        return self._held().folder

    async def start(self) -> None:
        """Start what is not configured, all at once, and wait until all of it answers.

        Raises:
            InstanceBusyError: another process uses the instance.
            ProcessStartError: a server did not come up; all of them are stopped again.
            PostgresMissingError, ValkeyMissingError, RabbitMissingError: set-up was not done.
        """
        self._instance = await asyncio.to_thread(
            instances.take,
            self._name,
            local_folder=self._local_folder,
            side_by_side=self._side_by_side,
        )
        try:
            if self._fresh:
                await asyncio.to_thread(self._instance.wipe, *ALL)
            for tries_left in reversed(range(_START_TRIES)):
                try:
                    await self._start_all()
                    break
                except ProcessStartError:
                    await self._close_guardian()
                    if tries_left == 0:
                        raise
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, in good order, and give the instance back; twice is once."""
        await asyncio.gather(*(self._stop_one(server) for server in self._servers.values()))
        self._servers.clear()
        await self._close_guardian()
        if self._instance is not None:
            if self._temporary:
                await asyncio.to_thread(self._instance.wipe, *ALL)
            self._instance.free()
            self._instance = None

    async def kill(self, name: ServerName) -> None:
        """End a private server as a crash would: SIGKILL to all its processes; waits."""
        await self._process(name).kill()

    async def restart(self, name: ServerName) -> None:
        """Start a private server again on its port and data, stopping it first if it runs."""
        server = self._servers[name]
        await self._stop_one(server)
        await server.start()

    async def pause(self, name: ServerName) -> None:
        """Stall a private server (SIGSTOP to all its processes): it keeps its connections."""
        await self._process(name).signal(signal.SIGSTOP, tree=True)

    async def resume(self, name: ServerName) -> None:
        """Let a stalled server go on."""
        await self._process(name).signal(signal.SIGCONT, tree=True)

    def pid(self, name: ServerName) -> int:
        """The pid of a private server."""
        return self._process(name).pid

    def _url(self, name: ServerName) -> str:
        if name in self._configured:
            return self._configured[name]
        server = self._servers.get(name)
        return "" if server is None else server.url

    def _held(self) -> Instance:
        if self._instance is None:
            raise RuntimeError("the servers are not started")
        return self._instance

    def _process(self, name: ServerName) -> Process:
        server = self._servers.get(name)
        if server is None or server.process is None:
            raise RuntimeError(f"{name} is not a private server of this run")
        return server.process

    async def _start_all(self) -> None:
        instance = self._held()
        self._guardian = Guardian(instance.run_folder)
        await self._guardian.start()
        chosen = _choose_ports(instance)
        for name in self._wanted:
            self._servers[name] = self._make(name, instance, self._guardian, chosen)
        started = await asyncio.gather(
            *(server.start() for server in self._servers.values()), return_exceptions=True
        )
        for result in started:
            if isinstance(result, BaseException):
                raise result
        instance.keep_ports(chosen)

    def _make(
        self, name: ServerName, instance: Instance, guardian: Guardian, chosen: dict[str, int]
    ) -> Postgres | Valkey | Rabbit:
        if name == "postgres":
            return Postgres(instance, guardian, chosen["postgres"])
        if name == "redis":
            return Valkey(instance, guardian, chosen["redis"])
        amqp_ports = RabbitPorts(
            amqp=chosen["amqp"],
            distribution=chosen["amqp_distribution"],
            mapper=chosen["amqp_mapper"],
            tools=chosen["amqp_tools"],
        )
        return Rabbit(instance, guardian, amqp_ports)

    async def _stop_one(self, server: Postgres | Valkey | Rabbit) -> None:
        if isinstance(server, Rabbit):
            await server.stop()
        elif server.process is not None:
            await server.process.stop(_STOP_SECONDS)

    async def _close_guardian(self) -> None:
        if self._guardian is not None:
            await self._guardian.close()
            self._guardian = None


def _choose_ports(instance: Instance) -> dict[str, int]:
    """The instance's ports of last time where they are free, others where not."""
    kept = instance.recall_ports()
    if set(kept) == set(_PORT_NAMES) and all(ports.is_free(port) for port in kept.values()):
        return kept
    return dict(zip(_PORT_NAMES, ports.choose(len(_PORT_NAMES)), strict=True))
