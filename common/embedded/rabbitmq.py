"""A private RabbitMQ, from Debian's packages unpacked without root, or the machine's own.

Three things are not what RabbitMQ does by itself. Everything it listens on is bound to the
loopback interface, its port mapper (epmd) included, which is a private one so that nodes of other
runs cannot clash with ours by name. The server's own script is called, not Debian's wrapper, which
insists on root or on its own user. And the script is made to become the server instead of waiting
for it, so that the pid we hold is the server's.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from common.embedded.amqp_handshake import broker_answers
from common.embedded.instances import LOCAL_FOLDER, Instance, write_private
from common.embedded.ports import is_free
from common.embedded.processes import Command, Guardian, Process, ProcessStartError

USER = "paymesh"
_NODE = "paymesh@localhost"
_READY_SECONDS = 90.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
default_user = {user}
default_pass = {password}
loopback_users = none
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 512MB
log.file = false
log.console = true
log.console.level = warning
"""


class RabbitMissingError(Exception):
    """There is no RabbitMQ to start: run `make setup`, or set PAYMESH_AMQP_URL."""


@dataclass(frozen=True)
class RabbitPrograms:
    """Where RabbitMQ and Erlang are: `sbin` of the server, the folder with `erl`, and epmd."""

    sbin: Path
    erlang_bin: Path
    epmd: Path


def find_programs(local_folder: Path = LOCAL_FOLDER) -> RabbitPrograms:
    """The fetched packages, else those that the machine has.

    Raises:
        RabbitMissingError: neither is there.
    """
    fetched = local_folder / "rabbitmq"
    for root, erlang_bin in ((fetched / "root", fetched / "bin"), (Path("/"), Path("/usr/bin"))):
        servers = sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"))
        epmds = sorted(root.glob("usr/lib/erlang/erts-*/bin/epmd"))
        if servers and epmds and (erlang_bin / "erl").exists():
            return RabbitPrograms(servers[-1], erlang_bin, epmds[-1])
    raise RabbitMissingError(RabbitMissingError.__doc__)


@dataclass(frozen=True)
class RabbitPorts:
    """The ports of one node: clients, other nodes, the port mapper, and the command-line tools."""

    amqp: int
    distribution: int
    mapper: int
    tools: int


class Rabbit:
    """One server: data in `amqp/` of the instance."""

    name = "amqp"

    def __init__(self, instance: Instance, guardian: Guardian, ports: RabbitPorts) -> None:
        self._folder = instance.folder / "amqp"
        self._log_folder = instance.log_folder
        self._guardian = guardian
        self._password = instance.password()
        self._ports = ports
        self._mapper: Process | None = None
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Address of the default virtual host, as an administrator."""
        return f"amqp://{USER}:{self._password}@127.0.0.1:{self._ports.amqp}/"

    async def start(self) -> None:
        """Start and wait until it answers the AMQP handshake.

        Raises:
            RabbitMissingError: no programs.
            ProcessStartError: it ended or did not answer; the log's end is in the message.
        """
        programs = find_programs()
        self._configure()
        await self._start_mapper(programs)
        if not is_free(self._ports.amqp):
            raise ProcessStartError(f"amqp: port {self._ports.amqp} is taken by another program")
        log = self._log_folder / "amqp.log"
        self.process = await self._guardian.spawn(
            Command(
                name=self.name,
                argv=[str(programs.sbin / "rabbitmq-server")],
                log=log,
                env=self.environment(),
                cwd=self._folder,
            )
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._answers():
                    if self.process.status is not None:
                        raise ProcessStartError(
                            f"amqp ended at its start:\n{log.read_text()[-2000:]}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self.process.kill()
            raise ProcessStartError(f"amqp did not answer; see {log}") from None

    async def stop(self) -> None:
        """Stop the server, then its port mapper."""
        if self.process is not None:
            await self.process.stop(_STOP_SECONDS)
        if self._mapper is not None:
            await self._mapper.stop(1.0)
            self._mapper = None

    def environment(self) -> dict[str, str]:
        """The environment of the server and of its command-line tools."""
        programs = find_programs()
        ports = self._ports
        return {
            "PATH": f"{programs.erlang_bin}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(self._folder),
            "LC_ALL": "C.UTF-8",
            # Makes the script replace itself by the server, and change nothing else.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "generated"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "environment.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_NODE_PORT": str(ports.amqp),
            "RABBITMQ_DIST_PORT": str(ports.distribution),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(ports.tools),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(ports.tools + 10),
            # Two schedulers, which do not spin while they wait: the machine is for the services.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none",
            "ERL_EPMD_PORT": str(ports.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
        }

    def _configure(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_private(
            self._folder / "rabbitmq.conf",
            _CONFIGURATION.format(port=self._ports.amqp, user=USER, password=self._password),
        )
        write_private(self._folder / "enabled_plugins", "[].\n")
        write_private(self._folder / "environment.conf", "")
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(20), mode=0o400)

    async def _start_mapper(self, programs: RabbitPrograms) -> None:
        if self._mapper is not None and self._mapper.status is None:
            return
        if not is_free(self._ports.mapper):
            raise ProcessStartError(f"epmd: port {self._ports.mapper} is taken by another program")
        self._mapper = await self._guardian.spawn(
            Command(
                name="epmd",
                argv=[str(programs.epmd), "-port", str(self._ports.mapper)],
                log=self._log_folder / "epmd.log",
                env={"ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": str(self._folder)},
            )
        )
        while is_free(self._ports.mapper):
            if self._mapper.status is not None:
                raise ProcessStartError("epmd ended at its start")
            await asyncio.sleep(_POLL_SECONDS)

    async def _answers(self) -> bool:
        """Whether a server with our password answers, and the one that was started has said so."""
        try:
            noted = (self._folder / "pid").read_text()
        except OSError:
            return False
        if self.process is None or re.sub(r"\D", "", noted) != str(self.process.pid):
            return False
        return await broker_answers(self._ports.amqp, USER, self._password, timeout_seconds=5)
