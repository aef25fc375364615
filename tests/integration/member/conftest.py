"""Member on a real PostgreSQL, with the real ledger beside it, both over the real mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from paymesh.account.v1 import AccountServiceStub
from paymesh.member.v1 import MemberServiceStub

from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal
from common.db.pool import Pool
from common.events.broker import Broker
from common.ids import IdFactory
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.process import ProcessKit, prepare_schemas
from common.redis import open_redis
from common.service import ServiceSource
from common.settings import Settings
from services.account import wiring as account
from services.member import wiring as member
from services.member.flows.parts import Parts
from services.member.peers import AccountPeer
from services.member.store import MemberStore

TOPOLOGY = Path(__file__).parents[3] / "topology"
IDS = IdFactory(SystemClock())
OPERATOR = CallContext(
    Principal(actor_type=ActorType.OPERATOR, actor_id="ada", roles=("operator",)),
    caller="operator",
)


def merchant_call(merchant_id: str, mode: Mode = Mode.LIVE, caller: str = "edge") -> CallContext:
    """Return the circumstances of a merchant's call."""
    principal = Principal(
        mode=mode,
        merchant_id=merchant_id,
        actor_type=ActorType.MERCHANT,
        actor_id="key_1",
        roles=("merchant",),
    )
    return CallContext(principal, biz_trace_id="biz_1", caller=caller)


@dataclass
class World:
    """Member and the ledger, served."""

    kit: ProcessKit
    pool: Pool

    def member(self, caller: str) -> Any:
        """Member, as one caller reaches it."""
        return MemberServiceStub(self.kit.channel(caller, "member"))

    def account(self) -> Any:
        """The ledger, as an operator reaches it."""
        return AccountServiceStub(self.kit.channel("operator", "account"))

    def parts(self, open_accounts: Any = None) -> Parts:
        """What flows stand on, with another ledger if one is given."""
        peer = AccountPeer(self.kit.channel("member", "account"))
        return Parts(
            MemberStore(self.pool),
            open_accounts or peer.open_accounts,
            self.kit.clock,
            self.kit.ids,
        )


@pytest.fixture(scope="module")
async def world(
    database_url: str, redis_url: str, amqp_url: str, redis_prefix: str
) -> AsyncIterator[World]:
    """Both services in this process."""
    settings = Settings(postgres_url=database_url)
    sources = [
        ServiceSource("account", account.wire, account.MIGRATIONS),
        ServiceSource("member", member.wire, member.MIGRATIONS),
    ]
    urls = await prepare_schemas(sources, settings)
    clock = SystemClock()
    host = Host(
        process="all",
        topology=load_topology(TOPOLOGY / "all_in_one.toml", {}),
        middleware=production_chain(
            settings=MeshSettings(),
            principal_key="p1:secret",
            access=load_access(TOPOLOGY / "access.toml"),
            clock=clock,
        ),
        clock=clock,
        settings=MeshSettings(),
    )
    kit = ProcessKit(
        settings=settings,
        clock=clock,
        ids=IdFactory(clock),
        redis=open_redis(redis_url, namespace=redis_prefix),
        broker=Broker(amqp_url, namespace="", name="test"),
        host=host,
        schema_urls=urls,
    )
    closes: list[Callable[[], Awaitable[None]]] = []
    for source in sources:
        service = await source.wire(kit)
        for register in service.register:
            host.add(source.name, register)
        assert service.close is not None
        closes.append(service.close)
    yield World(kit, await kit.pool("member"))
    await asyncio.gather(*(close() for close in closes))
    await host.close()
    await kit.close()


def of_tenant(call: CallContext, tenant_id: str) -> CallContext:
    """Return the same circumstances at another tenant."""
    return replace(call, principal=replace(call.principal, tenant_id=tenant_id))
