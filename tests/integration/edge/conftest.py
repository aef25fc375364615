"""The edge over a real socket, with real Redis, PostgreSQL and mesh behind it.

The servicers of the contracts are played here, so that each test says what they answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from paymesh.account.v1 import (
    AccountServiceServicer,
    GetOwnerBalancesRequest,
    GetOwnerBalancesResponse,
    OwnerBalance,
    add_AccountServiceServicer_to_server,
)
from paymesh.channel.v1 import (
    ChannelServiceServicer,
    HandleCallbackRequest,
    HandleCallbackResponse,
    add_ChannelServiceServicer_to_server,
)
from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import (
    GetMerchantKeyRequest,
    GetMerchantKeyResponse,
    MemberServiceServicer,
    MemberStatus,
    Merchant,
    MerchantKey,
    add_MemberServiceServicer_to_server,
)
from paymesh.trade.v1 import (
    CreateOrderRequest,
    CreateOrderResponse,
    GetOrderRequest,
    GetOrderResponse,
    ListOrdersRequest,
    ListOrdersResponse,
    Order,
    OrderState,
    TradeServiceServicer,
    add_TradeServiceServicer_to_server,
)
from paymesh.type.v1 import Money

from common.clock import SystemClock
from common.context import CallContext, current
from common.db.migrations import migrate
from common.db.roles import prepare_schema
from common.errors import NotFoundError
from common.events.broker import Broker
from common.ids import IdFactory
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.process import ProcessKit
from common.redis import open_redis
from common.settings import Settings
from services.edge.config import EdgeSettings
from services.edge.wiring import MIGRATIONS, build

TOPOLOGY = Path(__file__).parents[3] / "topology"
IDS = IdFactory(SystemClock())


@dataclass
class Behind:
    """What the services behind the door saw, and what they answer."""

    seen: list[tuple[Any, CallContext]] = field(default_factory=list)
    keys: dict[str, tuple[MerchantKey, Merchant]] = field(default_factory=dict)
    key_reads: int = 0
    ttl_seconds: int = 60
    create_order: Callable[[CreateOrderRequest], Awaitable[CreateOrderResponse]] | None = None
    callback: HandleCallbackResponse = field(
        default_factory=lambda: HandleCallbackResponse(
            http_status=200, content_type="text/plain", body=b"success"
        )
    )

    def see(self, request: Any) -> None:
        """Remember a request and its circumstances."""
        self.seen.append((request, current()))

    def add_key(
        self,
        public_key: bytes,
        *,
        merchant_id: str | None = None,
        mode: str = "TEST",
        status: MemberStatus = MemberStatus.MEMBER_STATUS_ACTIVE,
    ) -> str:
        """Register a key of a (new) merchant; return its id."""
        merchant = Merchant(id=merchant_id or IDS.new("mer"), status=status)
        key = MerchantKey(
            id=IDS.new("key"), merchant_id=merchant.id, public_key=public_key, mode=mode
        )
        self.keys[key.id] = (key, merchant)
        return key.id


def order_of(request: CreateOrderRequest) -> Order:
    """The order that a request asks for."""
    return Order(
        id=IDS.new("trd"),
        merchant_order_no=request.merchant_order_no,
        state=OrderState.ORDER_STATE_CREATED,
        amount=request.amount,
        metadata=request.metadata,
        biz_trace_id=current().biz_trace_id,
    )


class PlayedTrade(TradeServiceServicer):
    """Trade as far as the edge needs it."""

    def __init__(self, behind: Behind) -> None:
        self.behind = behind

    async def CreateOrder(  # noqa: D102, N802
        self, request: CreateOrderRequest, context: Any
    ) -> CreateOrderResponse:
        self.behind.see(request)
        if self.behind.create_order is not None:
            return await self.behind.create_order(request)
        return CreateOrderResponse(order=order_of(request))

    async def GetOrder(  # noqa: D102, N802
        self, request: GetOrderRequest, context: Any
    ) -> GetOrderResponse:
        self.behind.see(request)
        raise NotFoundError(resource="order", id=request.order_id)

    async def ListOrders(  # noqa: D102, N802
        self, request: ListOrdersRequest, context: Any
    ) -> ListOrdersResponse:
        self.behind.see(request)
        return ListOrdersResponse(orders=[Order(id="trd_1")], next_page_token="next")


class PlayedAccount(AccountServiceServicer):
    """Account as far as the edge needs it."""

    def __init__(self, behind: Behind) -> None:
        self.behind = behind

    async def GetOwnerBalances(  # noqa: D102, N802
        self, request: GetOwnerBalancesRequest, context: Any
    ) -> GetOwnerBalancesResponse:
        self.behind.see(request)
        money = Money(currency_code="USD", amount_minor=2**53 + 1)
        return GetOwnerBalancesResponse(
            balances=[OwnerBalance(kind="user_available", available=money)]
        )


class PlayedMember(MemberServiceServicer):
    """Member as far as the edge needs it."""

    def __init__(self, behind: Behind) -> None:
        self.behind = behind

    async def GetMerchantKey(  # noqa: D102, N802
        self, request: GetMerchantKeyRequest, context: Any
    ) -> GetMerchantKeyResponse:
        self.behind.key_reads += 1
        found = self.behind.keys.get(request.key_id)
        if found is None:
            raise NotFoundError(resource="key", id=request.key_id)
        return GetMerchantKeyResponse(
            key=found[0], merchant=found[1], ttl_seconds=self.behind.ttl_seconds
        )


class PlayedChannel(ChannelServiceServicer):
    """Channel as far as the edge needs it."""

    def __init__(self, behind: Behind) -> None:
        self.behind = behind

    async def HandleCallback(  # noqa: D102, N802
        self, request: HandleCallbackRequest, context: Any
    ) -> HandleCallbackResponse:
        self.behind.see(request)
        return self.behind.callback


@dataclass
class Reply:
    """What came back over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Edge:
    """A served edge, and what a merchant's program would use."""

    port: int
    behind: Behind
    kit: ProcessKit
    signer: RequestSigner
    private_key: bytes
    merchant_id: str
    refusals: Any
    serving: asyncio.Task[None]

    async def raw(self, *parts: bytes, half_close: bool = False) -> Reply | None:
        """Send bytes on a new connection; return the first answer, None when there is none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(20):
                return await read_reply(reader)
        except ConnectionError:
            return None
        finally:
            writer.close()

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        extra: bytes = b"",
    ) -> Reply:
        """Send one request with the headers as given."""
        reply = await self.raw(compose(method, target, body, headers or {}, extra))
        assert reply is not None
        return reply

    async def post(
        self,
        target: str,
        content: Any,
        *,
        key: str | None = None,
        signer: RequestSigner | None = None,
        **signing: Any,
    ) -> Reply:
        """Send a signed change."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = (signer or self.signer).sign(
            "POST", target, body, idempotency_key=key or IDS.new("idk"), **signing
        )
        return await self.send("POST", target, body, headers)

    async def get(self, target: str, **signing: Any) -> Reply:
        """Send a signed read."""
        return await self.send("GET", target, b"", self.signer.sign("GET", target, **signing))


def compose(
    method: str, target: str, body: bytes, headers: Mapping[str, str], extra: bytes = b""
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: edge"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + extra + b"\r\n" + body


async def read_reply(reader: asyncio.StreamReader) -> Reply | None:
    """Read one answer; None when the connection ends without one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(head[0].split()[1]), headers, body)


async def wait_until_served(port: int) -> None:
    """Return when the port takes connections."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


StartEdge = Callable[..., Awaitable[Edge]]


@pytest.fixture(scope="module")
async def start_edge(
    database_url: str, redis_url: str, amqp_url: str, redis_prefix: str
) -> AsyncIterator[StartEdge]:
    """A function that serves an edge with settings of its own; stopped at the end."""
    stops: list[Callable[[], Awaitable[None]]] = []

    async def start(redis: str = redis_url, **changed: Any) -> Edge:
        behind = Behind()
        url = await prepare_schema(database_url, "edge")
        await migrate(url, "edge", {"edge": MIGRATIONS})
        clock = SystemClock()
        topology = load_topology(TOPOLOGY / "all_in_one.toml", {})
        host = Host(
            process="all",
            topology=topology,
            middleware=production_chain(
                settings=MeshSettings(),
                principal_key="p1:secret",
                access=load_access(TOPOLOGY / "access.toml"),
                clock=clock,
            ),
            clock=clock,
            settings=MeshSettings(),
        )
        for name, register, servicer in (
            ("trade", add_TradeServiceServicer_to_server, PlayedTrade(behind)),
            ("account", add_AccountServiceServicer_to_server, PlayedAccount(behind)),
            ("member", add_MemberServiceServicer_to_server, PlayedMember(behind)),
            ("channel", add_ChannelServiceServicer_to_server, PlayedChannel(behind)),
        ):
            host.add(name, partial(register, servicer))  # type: ignore[operator]
        kit = ProcessKit(
            settings=Settings(),
            clock=clock,
            ids=IdFactory(clock),
            redis=open_redis(redis, namespace=f"{redis_prefix}{IDS.new('tst')}:"),
            broker=Broker(amqp_url, namespace="", name="test"),
            host=host,
            schema_urls={"edge": url},
        )
        service, server = await build(kit, EdgeSettings(http_port=0, **changed))
        for register in service.register:
            host.add("edge", register)
        tasks = [asyncio.create_task(work.run()) for work in service.background]  # type: ignore[union-attr]
        private_key, public_key = generate_key()
        key_id = behind.add_key(public_key)

        async def stop() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert service.close is not None
            await service.close()
            await host.close()
            await kit.close()

        stops.append(stop)
        await wait_until_served(server.port)
        return Edge(
            port=server.port,
            behind=behind,
            kit=kit,
            signer=RequestSigner(key_id, private_key),
            private_key=private_key,
            merchant_id=behind.keys[key_id][1].id,
            refusals=service.background[1],
            serving=tasks[0],
        )

    yield start
    for stop in stops:
        await stop()


@pytest.fixture(scope="module")
async def shared_edge(start_edge: StartEdge) -> Edge:
    """An edge with the usual settings."""
    return await start_edge()


@pytest.fixture
async def edge(shared_edge: Edge) -> Edge:
    """The shared edge, with nothing seen yet."""
    shared_edge.behind.seen.clear()
    shared_edge.behind.create_order = None
    return shared_edge
