"""What a service gives to the process that hosts it, and what it is given.

A service's `wiring.py` has `async def wire(kit: Kit) -> Service`: it takes pools, channels and the
clock from the kit, builds stores, flows and servicers, and hands back what must be served and what
must run beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc.aio

from common.clock import Clock
from common.db.pool import Pool
from common.ids import IdFactory
from common.settings import Settings

if TYPE_CHECKING:
    from common.events.broker import Broker
    from common.redis import RedisPipeline

Register = Callable[[grpc.aio.Server], None]
"""Adds servicers to a server: `partial(add_OrderServiceServicer_to_server, servicer)`."""

BackgroundTask = Callable[[], Awaitable[None]]
"""Runs until it is cancelled; restarted with a growing pause when it fails."""


@dataclass(frozen=True)
class Background:
    """Work that runs beside the calls: a relay, a consumer, a job worker."""

    name: str
    """For logs: `trade relay`."""
    run: BackgroundTask
    """Runs until it is cancelled."""
    flush: Callable[[], Awaitable[object]] | None = None
    """Last words of a stopping process, after its calls have drained: publish what is written."""


@dataclass(frozen=True)
class Service:
    """One service, wired."""

    name: str
    """Its name in the topology: `trade`."""
    register: Sequence[Register] = ()
    """What it serves."""
    background: Sequence[Background | BackgroundTask] = ()
    """What runs beside, from the moment the process serves until it drains."""
    close: Callable[[], Awaitable[None]] | None = None
    """Gives back what the service opened itself; the kit's parts are closed by the process."""
    declare: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """Run before any service of the process begins: declaration of the queues it consumes."""


class Kit(Protocol):
    """The parts of a process that its services share."""

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        ...

    @property
    def clock(self) -> Clock:
        """The process's clock."""
        ...

    @property
    def ids(self) -> IdFactory:
        """Makes ids from the process's clock."""
        ...

    @property
    def redis(self) -> RedisPipeline:
        """Redis, with the commands of many callers in one round trip."""
        ...

    @property
    def broker(self) -> Broker:
        """RabbitMQ, one connection for the process."""
        ...

    async def pool(
        self,
        service: str,
        *,
        connections_max: int | None = None,
        plan_cache_mode: str | None = None,
    ) -> Pool:
        """Return a pool on the service's schema, which is up to date; closed by the process."""
        ...

    def channel(
        self, caller: str, target: str, *, repeat_unknown: bool = False
    ) -> grpc.aio.Channel:
        """Return the channel on which `caller` reaches `target`, whichever way it travels.

        `repeat_unknown`: every request sent on it may be executed twice with the effect of one,
        so calls whose outcome is unknown are repeated.
        """
        ...


Wire = Callable[[Kit], Awaitable[Service]]
"""`wire` of a service's `wiring.py`."""


@dataclass(frozen=True)
class ServiceSource:
    """Where a process finds a service that it is to host."""

    name: str
    wire: Wire
    migrations: Path | None = None
    """Folder of its migrations; None for a service without tables of its own."""
