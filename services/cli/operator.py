"""The operator's way into the mesh: stubs that carry an operator's name and role.

Whoever holds the mesh's secrets may be an operator; the secrets come from the environment, as those
of every process do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import grpc.aio

from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal, bound
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import TopologyError, load_topology
from common.settings import Settings

NAME: Final = "operator"
Stub = TypeVar("Stub")


@dataclass(frozen=True)
class Operator:
    """An operator at work in one world."""

    host: Host
    principal: Principal

    def stub(self, make: Callable[[grpc.aio.Channel], Stub], service: str) -> Stub:
        """Return a stub of a service: `operator.stub(TradeServiceStub, "trade")`.

        Ends the program when the topology has no such service: a ledger that stands alone, say.
        """
        try:
            return make(self.host.channel(NAME, service))
        except TopologyError as error:
            sys.exit(f"paymesh: {error}")

    def knows(self, service: str) -> bool:
        """Whether the topology has a service."""
        return service in self.host.topology.services


@asynccontextmanager
async def operate(
    environment: Mapping[str, str] | None = None,
    *,
    name: str = "cli",
    mode: Mode = Mode.LIVE,
    roles: tuple[str, ...] = ("operator",),
) -> AsyncIterator[Operator]:
    """Act as an operator; `environment` (of a deployment) is added to the process's own.

    Ends the program when the topology cannot be read.
    """
    settings, mesh_settings, topology_path = _settings(environment)
    try:
        topology = load_topology(topology_path, {**os.environ, **(environment or {})})
    except TopologyError as error:
        sys.exit(f"paymesh: {error}")
    topology = topology.model_copy(update={"processes": {**topology.processes, NAME: ()}})
    clock = SystemClock()
    chain = production_chain(
        settings=mesh_settings,
        principal_key=settings.principal_key.get_secret_value(),
        access=load_access(topology_path.parent / "access.toml"),
        clock=clock,
    )
    host = Host(
        process=NAME, topology=topology, middleware=chain, clock=clock, settings=mesh_settings
    )
    principal = replace(
        Principal(mode=mode), actor_type=ActorType.OPERATOR, actor_id=name, roles=roles
    )
    try:
        with bound(CallContext(principal=principal, caller=NAME)):
            yield Operator(host, principal)
    finally:
        await host.close()


def _settings(environment: Mapping[str, str] | None) -> tuple[Settings, MeshSettings, Path]:
    """Read settings as a process with this environment would; this process's stays as it is."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        settings = Settings()
        mesh_settings = MeshSettings()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return settings, mesh_settings, Path(settings.topology_path)
