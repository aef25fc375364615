"""Which services share a process, where they listen, and how calls between them travel.

Read from `topology/*.toml`; `PAYMESH_PORTS` (JSON: service → port) overrides the ports, so that a
supervisor can give each run ports of its own.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PORTS_VARIABLE: Final = "PAYMESH_PORTS"


class Way(StrEnum):
    """How a call travels."""

    LOCAL = "local"
    STREAM = "stream"
    UNARY = "unary"


class TopologyError(Exception):
    """The topology file is wrong; the message says where and how."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServicePlace(_Part):
    """Where one service is reached."""

    host: str = ""
    """Host name; the topology's default when empty."""
    port: int = Field(ge=0, le=65_535)
    """Port; 0 lets the system choose, which only makes sense where nobody else calls it."""


class PairWay(_Part):
    """How calls from one service to another travel."""

    caller: str
    """A service, or `*` for all."""
    target: str
    """A service, or `*` for all."""
    way: Way


class Topology(_Part):
    """The whole arrangement."""

    name: str
    """Name of the arrangement."""
    host: str = "127.0.0.1"
    """Host of every service that names none; `{service}` stands for the service's name."""
    way: Way = Way.STREAM
    """How calls between processes travel unless a pair says otherwise."""
    services: dict[str, ServicePlace]
    """Every service by name."""
    processes: dict[str, tuple[str, ...]]
    """The services of each process, by the process's name."""
    pairs: tuple[PairWay, ...] = ()
    """Exceptions to `way`; the first that fits holds."""

    @model_validator(mode="after")
    def _check(self) -> Topology:
        homes: dict[str, str] = {}
        for process, services in self.processes.items():
            for service in services:
                if service not in self.services:
                    raise ValueError(f"process {process} hosts {service}, which is no service")
                if service in homes:
                    raise ValueError(f"{service} is in two processes")
                homes[service] = process
        missing = sorted(set(self.services) - set(homes))
        if missing:
            raise ValueError(f"no process hosts {', '.join(missing)}")
        for pair in self.pairs:
            if pair.way is Way.LOCAL and homes.get(pair.caller) != homes.get(pair.target):
                raise ValueError(f"{pair.caller} and {pair.target} do not share a process")
        return self

    def process_of(self, service: str) -> str:
        """Return the process that hosts a service; raises TopologyError."""
        for process, services in self.processes.items():
            if service in services:
                return process
        raise TopologyError(f"topology {self.name} knows no service {service}")

    def services_of(self, process: str) -> tuple[str, ...]:
        """Return the services of a process; raises TopologyError."""
        if process not in self.processes:
            raise TopologyError(f"topology {self.name} knows no process {process}")
        return self.processes[process]

    def address_of(self, service: str) -> str:
        """Return `host:port` of a service; raises TopologyError."""
        place = self.services.get(service)
        if place is None:
            raise TopologyError(f"topology {self.name} knows no service {service}")
        host = place.host or self.host
        return f"{host.replace('{service}', service)}:{place.port}"

    def port_of(self, service: str) -> int:
        """Return the port that a service listens on."""
        return int(self.address_of(service).rpartition(":")[2])

    def way_of(self, caller: str, target: str, *, is_local: bool) -> Way:
        """Return how a call travels. `is_local`: the target is hosted by the caller's process.

        A call inside one process is local unless its pair asks for another way.
        """
        for pair in self.pairs:
            fits = pair.caller in (caller, "*") and pair.target in (target, "*")
            if fits and (pair.way is not Way.LOCAL or is_local):
                return pair.way
        if is_local:
            return Way.LOCAL
        return Way.STREAM if self.way is Way.LOCAL else self.way

    def with_ports(self, ports: Mapping[str, int]) -> Topology:
        """Return the same arrangement on other ports."""
        unknown = sorted(set(ports) - set(self.services))
        if unknown:
            raise TopologyError(f"ports are given for unknown services: {', '.join(unknown)}")
        services = {
            name: place.model_copy(update={"port": ports.get(name, place.port)})
            for name, place in self.services.items()
        }
        return self.model_copy(update={"services": services})


def load_topology(path: Path, environment: Mapping[str, str] | None = None) -> Topology:
    """Read a topology file, with the ports of `PAYMESH_PORTS` when that is set.

    Raises TopologyError with the file's name and what is wrong with it.
    """
    variables = os.environ if environment is None else environment
    try:
        topology = parse_topology(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, TopologyError) as error:
        raise TopologyError(f"{path}: {error}") from error
    ports = variables.get(PORTS_VARIABLE, "")
    if not ports:
        return topology
    try:
        given = {str(name): int(port) for name, port in json.loads(ports).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise TopologyError(f"{PORTS_VARIABLE} is no JSON object of ports: {error}") from error
    # One environment serves every topology: names that this one has no service for are ignored.
    return topology.with_ports({n: p for n, p in given.items() if n in topology.services})


def parse_topology(data: Mapping[str, Any]) -> Topology:
    """Return the topology that a parsed file describes; raises TopologyError."""
    try:
        return Topology.model_validate(dict(data))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'topology'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise TopologyError(problems) from error
