"""Two processes of a mesh in one loop: `near` calls, `far` answers, by any of the three ways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc.aio
from paymesh.mesh.connect import connect
from paymesh.mesh.stream_channel import StreamChannel, StreamSettings
from paymesh.mesh.v1 import EchoRequest, EchoResponse
from pydantic import SecretStr

from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal
from common.mesh.caller_token import CALLER_KEY, CallerTokens
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.key_ring import KeyRing
from common.mesh.local_channel import LocalChannel
from common.mesh.middleware.authorisation import parse_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import parse_topology
from tests.conformance.mesh.probe import SERVICE, Probe

WAYS: Final = ("local", "stream", "unary")
SECRET: Final = "s1:mesh-of-the-tests"
PRINCIPAL_KEY: Final = "p1:principals-of-the-tests"
ECHO: Final = "paymesh.mesh.v1.EchoService/Echo"

ACCESS: Final = {
    "allow": [
        {"methods": [ECHO], "callers": ["@anyone"]},
        {"methods": [f"{SERVICE}/*"], "callers": ["shop"]},
        {"methods": [f"{SERVICE}/Echo"], "callers": ["clerk"], "roles": ["approver"]},
    ]
}

STORY: Final = CallContext(
    principal=Principal(
        merchant_id="mer_1",
        mode=Mode.TEST,
        actor_type=ActorType.MERCHANT,
        actor_id="key_1",
        roles=("merchant",),
    ),
    biz_trace_id="btr_1",
    lane="canary",
)

Method = Callable[..., Any]


def mesh_settings(**changes: Any) -> MeshSettings:
    """Return settings for tests: nothing is repeated unless a test says so."""
    return MeshSettings(secret=SecretStr(SECRET), **{"retries_max": 0, **changes})


def caller_metadata(name: str) -> tuple[tuple[str, str], ...]:
    """Return what proves the caller `name` on a channel that is not the host's."""
    clock = SystemClock()
    tokens = CallerTokens(KeyRing.parse(SECRET, "caller"), clock)
    return ((CALLER_KEY, tokens.make(name, clock.monotonic())),)


def make_host(
    process: str,
    port: int,
    way: str,
    settings: MeshSettings,
    **chain_parts: Any,
) -> Host:
    """Return a host of the two-process arrangement in which calls go by `way`."""
    is_local = way == "local"
    topology = parse_topology(
        {
            "name": "test",
            "way": "unary" if way == "unary" else "stream",
            "services": {
                "shop": {"port": 0},
                "clerk": {"port": 0},
                "stranger": {"port": 0},
                "probe": {"port": port},
            },
            "processes": (
                {"far": ["probe", "shop", "clerk", "stranger"]}
                if is_local
                else {"far": ["probe"], "near": ["shop", "clerk", "stranger"]}
            ),
        }
    )
    clock = SystemClock()
    chain = production_chain(
        settings=settings,
        principal_key=PRINCIPAL_KEY,
        access=parse_access(ACCESS),
        clock=clock,
        **chain_parts,
    )
    return Host(
        process=process, topology=topology, middleware=chain, clock=clock, settings=settings
    )


class Mesh:
    """A serving `far` with its probe, and a `near` to call from."""

    def __init__(self, way: str, near: Host, far: Host, probe: Probe) -> None:
        self.way = way
        self.near = near
        self.far = far
        self.probe = probe
        self._raw: list[grpc.aio.Channel] = []

    @classmethod
    async def start(
        cls,
        way: str,
        settings: MeshSettings | None = None,
        **chain_parts: Any,
    ) -> Mesh:
        """Start both processes."""
        settings = settings or mesh_settings()
        probe = Probe()
        far = make_host("far", 0, way, settings, **chain_parts)
        far.add("probe", probe.register)
        await far.start()
        near = far
        if way != "local":
            near = make_host("near", far.ports[0], way, settings, **chain_parts)
        return cls(way, near, far, probe)

    async def stop(self) -> None:
        """End both."""
        self.probe.gate.set()
        for channel in self._raw:
            await channel.close(None)
        await self.near.close()
        await self.far.drain(2.0)
        await self.far.close()

    def method(self, name: str, caller: str = "shop", **channel: Any) -> Method:
        """Return a probe's method as a service would call it."""
        return method_on(self.near.channel(caller, "probe", **channel), name)

    def raw(self, settings: StreamSettings | None = None) -> grpc.aio.Channel:
        """Return the bare channel of the way, as a client outside would have it."""
        channel: grpc.aio.Channel
        address = f"127.0.0.1:{self.far.ports[0]}"
        if self.way == "local":
            channel = LocalChannel(self.far._dispatcher, "shop")
        elif self.way == "stream":
            channel = connect(address, "stream", service="test", settings=settings)
        else:
            channel = connect(address, "unary")
        self._raw.append(channel)
        return channel

    def raw_stream(self, settings: StreamSettings | None = None) -> StreamChannel:
        """Return a bare stream channel."""
        channel = self.raw(settings)
        assert isinstance(channel, StreamChannel)
        return channel


def method_on(channel: grpc.aio.Channel, name: str, service: str = SERVICE) -> Method:
    """Return a method of the probe on any channel."""
    return channel.unary_unary(
        f"/{service}/{name}", EchoRequest.SerializeToString, EchoResponse.FromString
    )


async def eventually(holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Return when `holds` does; fail the test when it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - polls what no event tells
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it never came that {what}") from None


async def within(awaitable: Awaitable[Any], seconds: float = 10.0) -> Any:
    """Return what is awaited; fail the test when it takes too long."""
    async with asyncio.timeout(seconds):
        return await awaitable
