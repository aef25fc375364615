"""The whole platform on one machine: servers, services, sandbox, each in a process of its own.

For `paymesh up`, the demo, the benchmarks and the system tests. Ports are fixed for the life of a
deployment, so that a restarted process is found where it was.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.embedded import ports
from common.embedded.cluster import Servers
from common.embedded.supervisor import Child, Supervisor
from common.mesh.topology import Topology, load_topology
from services.cli.sources import SERVICES
from services.sandbox.credentials import CHANNELS_FILE, make_sandbox_credentials

ROOT: Final = Path(__file__).resolve().parents[2]
TOPOLOGY_DEFAULT: Final = ROOT / "topology" / "processes.toml"

_READY_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """How a deployment is made."""

    instance: str = "up"
    """Folder below `.local/`; two deployments never share one."""
    topology: Path = TOPOLOGY_DEFAULT
    fresh_database: bool = False
    """Begin with empty books, in a database of its own, on servers that may be old."""
    private_servers: bool = False
    """Ignore configured addresses: for tests that kill servers."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of every process."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Variable → name and text of a file, written into the instance's folder; the variable names
    it."""
    say: Callable[[str], None] = print
    """Told what is being done."""


class Deployment:
    """A running platform; an async context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.servers = Servers(plan.instance, side_by_side=True, private=plan.private_servers)
        self.environment: dict[str, str] = {}
        """What every process of the deployment is given."""
        self.topology: Topology = load_topology(plan.topology)
        self.edge_url = ""
        self.sandbox_url = ""
        self._supervisor: Supervisor | None = None
        self._database = ""

    @property
    def supervisor(self) -> Supervisor:
        """The services' supervisor, once started."""
        if self._supervisor is None:
            raise RuntimeError("the deployment is not started")
        return self._supervisor

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the servers, then the services, and wait until each of them serves."""
        plan = self._plan
        plan.say("starting PostgreSQL, Redis and RabbitMQ")
        await self.servers.start()
        await self._make_environment()
        plan.say(f"starting {len(self.topology.processes)} processes of services")
        self._supervisor = Supervisor(
            [self._child(name, hosted) for name, hosted in self.topology.processes.items()],
            run_folder=self.servers.folder / "run-services",
            log_folder=self.servers.folder / "logs",
        )
        await self._supervisor.start()

    async def stop(self) -> None:
        """Stop the services, then the servers."""
        if self._supervisor is not None:
            await self._supervisor.stop()
            self._supervisor = None
        await self.servers.stop()

    async def _make_environment(self) -> None:
        plan, servers = self._plan, self.servers
        folder = servers.folder
        chosen = ports.choose(len(SERVICES) + 2)
        self.topology = self.topology.with_ports(dict(zip(SERVICES, chosen, strict=False)))
        edge_port, sandbox_port = chosen[-2:]
        self.edge_url = f"http://127.0.0.1:{edge_port}"
        self.sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        run = secrets.token_hex(4)
        postgres_url = servers.postgres_url
        sandbox_file = folder / "sandbox.sqlite"
        if plan.fresh_database:
            postgres_url = await _fresh_database(postgres_url, run)
            sandbox_file = folder / f"sandbox-{run}.sqlite"
        namespace = f"{run}." if plan.fresh_database else ""
        credentials = make_sandbox_credentials(folder / "credentials")
        secret = _keep_secret(folder / "mesh.secret")
        self.environment = {
            **servers.environment,
            "PAYMESH_POSTGRES_URL": postgres_url,
            "PAYMESH_REDIS_NAMESPACE": namespace,
            "PAYMESH_AMQP_NAMESPACE": namespace,
            "PAYMESH_TOPOLOGY_PATH": str(plan.topology),
            "PAYMESH_PORTS": json.dumps(dict(zip(SERVICES, chosen, strict=False))),
            "PAYMESH_PRINCIPAL_KEY": f"run:{secret}",
            "PAYMESH_PAGE_TOKEN_KEY": secret,
            "PAYMESH_MESH_SECRET": f"run:{secret}",
            "PAYMESH_EDGE_HTTP_PORT": str(edge_port),
            "PAYMESH_SANDBOX_PORT": str(sandbox_port),
            "PAYMESH_SANDBOX_DATABASE_FILE": str(sandbox_file),
            "PAYMESH_SANDBOX_PARTIES_FILE": str(credentials.parties_file),
            "PAYMESH_CHANNEL_SANDBOX_URL": self.sandbox_url,
            "PAYMESH_CHANNEL_CREDENTIALS_FILE": str(folder / "credentials" / CHANNELS_FILE),
            "PAYMESH_CHANNEL_CALLBACK_URL": f"{self.edge_url}/callbacks",
            **plan.settings,
            **self._write_files(),
        }

    def _write_files(self) -> dict[str, str]:
        written = {}
        for variable, (name, text) in self._plan.files.items():
            file = self.servers.folder / name
            file.write_text(text)
            written[variable] = str(file)
        return written

    def _child(self, name: str, hosted: Sequence[str]) -> Child:
        address = self.topology.address_of(hosted[0])

        async def ready() -> bool:
            return await serves(address)

        return Child(
            name=name,
            argv=[sys.executable, "-m", "paymesh", "serve", *hosted],
            env=self.environment,
            cwd=ROOT,
            ready=ready,
            ready_timeout_seconds=_READY_SECONDS,
        )


async def serves(address: str) -> bool:
    """Ask the health of the process at `address` whether it serves."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _fresh_database(postgres_url: str, run: str) -> str:
    """Create an empty database, dropping those of earlier runs that nobody uses."""
    connection = await asyncpg.connect(postgres_url)
    try:
        old = await connection.fetch(
            "SELECT datname FROM pg_database d WHERE datname LIKE 'paymesh\\_run\\_%'"
            " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)"
        )
        for row in old:
            await connection.execute(f'DROP DATABASE IF EXISTS "{row["datname"]}"')
        name = f"paymesh_run_{run}"
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    finally:
        await connection.close()
    return urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))


def _keep_secret(file: Path) -> str:
    """Return the installation's secret, made once, readable by its owner only."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text()
