"""Services wired as a process wires them, in the test's own loop, behind the whole middleware.

Calls travel the local way, with signed principals, the access table and validation. Whatever a
test does not host can be played by a servicer of the real contract (`plays`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import SecretStr

from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal, bound
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.events.broker import Broker
from common.events.consumer import Consumer, Handler
from common.events.event import Event, NewEvent, event_from_bytes
from common.ids import IdFactory
from common.mesh.calling import CallingChannel
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.redis import RedisPipeline
from common.service import Background, Register, Service
from common.settings import Settings

TOPOLOGY = Path(__file__).parents[1] / "topology"


class ShiftedClock(SystemClock):
    """The machine's clock, set ahead at will."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Return the shifted time."""
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        """Return shifted seconds."""
        return super().monotonic() + self.ahead.total_seconds()


@dataclass
class HostedKit:
    """`common.service.Kit` for the services of one test module."""

    settings: Settings
    clock: ShiftedClock
    ids: IdFactory
    broker: Broker
    host: Host
    pools: dict[str, Pool]
    services: list[Service] = field(default_factory=list)

    @property
    def redis(self) -> RedisPipeline:
        """Not had by services that do not need it."""
        raise NotImplementedError

    async def pool(
        self,
        service: str,
        *,
        connections_max: int | None = None,
        plan_cache_mode: str | None = None,
    ) -> Pool:
        """Return the pool of a hosted service."""
        return self.pools[service]

    def channel(self, caller: str, target: str, *, repeat_unknown: bool = False) -> CallingChannel:
        """Return the channel on which `caller` reaches `target`."""
        return self.host.channel(caller, target, repeat_unknown=repeat_unknown)

    async def rows(self, service: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return what a query finds in the schema of a service."""
        async with self.pools[service].acquire() as connection:
            return [dict(row.items()) for row in await connection.fetch(query, *arguments)]

    async def events(self, service: str, kind: str) -> list[Event]:
        """Return the events of a kind that a service has written, oldest first."""
        rows = await self.rows(
            service, "SELECT body FROM outbox WHERE type = $1 ORDER BY position", kind
        )
        return [event_from_bytes(row["body"]) for row in rows]

    def consumer(self, service: str, queue: str, handler: Handler) -> Consumer:
        """Return a consumer that is handed events by the test."""
        return Consumer(
            pool=self.pools[service],
            broker=self.broker,
            queue=queue,
            bindings=(),
            handler=handler,
        )

    def background(self, name: str) -> Background:
        """Return a hosted service's work by its name."""
        for service in self.services:
            for work in service.background:
                if isinstance(work, Background) and work.name == name:
                    return work
        raise LookupError(name)


@asynccontextmanager
async def hosting(
    database_url: str,
    wirings: Sequence[ModuleType],
    plays: Mapping[str, Register],
    *,
    amqp_url: str = "amqp://nowhere",
    amqp_namespace: str = "",
) -> AsyncIterator[HostedKit]:
    """Host services (their `wiring` modules) and play others."""
    clock = ShiftedClock()
    settings = Settings(page_token_key=SecretStr("token key"))
    mesh_settings = MeshSettings()
    topology = load_topology(TOPOLOGY / "all_in_one.toml")
    host = Host(
        process="all",
        topology=topology,
        middleware=production_chain(
            settings=mesh_settings,
            principal_key=settings.principal_key.get_secret_value(),
            access=load_access(TOPOLOGY / "access.toml"),
            clock=SystemClock(),
        ),
        clock=SystemClock(),
        settings=mesh_settings,
    )
    pools = {}
    for wiring in wirings:
        url = await prepare_schema(database_url, wiring.NAME)
        await migrate(url, wiring.NAME, {wiring.NAME: wiring.MIGRATIONS})
        pools[wiring.NAME] = await open_pool(url, SessionSettings(wiring.NAME), connections_max=6)
    broker = Broker(amqp_url, namespace=amqp_namespace, name="test")
    kit = HostedKit(settings, clock, IdFactory(clock), broker, host, pools)
    try:
        for wiring in wirings:
            service = await wiring.wire(kit)
            kit.services.append(service)
            for register in service.register:
                host.add(wiring.NAME, register)
        for name, register in plays.items():
            host.add(name, register)
        yield kit
    finally:
        for service in kit.services:
            if service.close is not None:
                await service.close()
        await host.close()
        await broker.close()
        for pool in pools.values():
            await pool.close()


def merchant_call(merchant_id: str, **changes: Any) -> CallContext:
    """Return the circumstances of a merchant's call."""
    principal = Principal(
        tenant_id="default",
        mode=Mode.TEST,
        merchant_id=merchant_id,
        actor_type=ActorType.MERCHANT,
        actor_id="key_1",
    )
    return CallContext(principal=replace(principal, **changes))


def operator_call(*roles: str) -> CallContext:
    """Return the circumstances of an operator's call."""
    return merchant_call("", actor_type=ActorType.OPERATOR, actor_id="ada", roles=roles)


async def calling(call: CallContext, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do a call in its circumstances."""
    with bound(call):
        return await work()


def heard(event: NewEvent) -> Event:
    """Return an event as a consumer hears it."""
    fields = {name: getattr(event, name) for name in NewEvent.__slots__}
    return Event(**fields, recorded_at=datetime.now(UTC))


async def until(condition: Callable[[], Awaitable[Any]], timeout_seconds: float = 30) -> Any:
    """Poll until the condition holds; return what it returned."""
    async with asyncio.timeout(timeout_seconds):
        while not (found := await condition()):  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)
    return found
