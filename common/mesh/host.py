"""One process of the mesh: what it serves, whom it calls, and how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio
from paymesh.mesh.connect import dial
from paymesh.mesh.deadlines import Deadlines
from paymesh.mesh.stream_channel import StreamChannel
from paymesh.mesh.v1 import add_EchoServiceServicer_to_server

from common.clock import Clock
from common.mesh.calling import Calling, CallingChannel
from common.mesh.chain import Chain
from common.mesh.collector import Collector
from common.mesh.dispatch import Dispatcher
from common.mesh.echo import EchoServicer
from common.mesh.frame_server import FrameServer
from common.mesh.incoming import IncomingCall, expire
from common.mesh.local_channel import LocalChannel
from common.mesh.server import MeshServer, channel_credentials, identities_of
from common.mesh.settings import MeshSettings
from common.mesh.topology import Topology, Way

_CLOSE_GRACE_SECONDS = 1.0
"""How long calls to others may still take when the process goes."""


class Host:
    """One process of the mesh: serves any set of services and calls the others.

    Must be made inside a running event loop. `process` is a name of the topology.
    """

    def __init__(
        self,
        *,
        process: str,
        topology: Topology,
        middleware: Chain,
        clock: Clock,
        settings: MeshSettings,
    ) -> None:
        self.process = process
        self.topology = topology
        self._settings = settings
        self._clock = clock
        self._services = topology.services_of(process)
        self._collector = Collector()
        self._dispatcher = Dispatcher(
            self._collector.methods, middleware.incoming, clock, settings.message_bytes_max
        )
        self._deadlines: Deadlines[IncomingCall] = Deadlines(expire, clock.monotonic)
        self._frames = FrameServer(
            self._dispatcher, settings.limits, process, self._deadlines, identities_of
        )
        self._calling = Calling(
            middleware=middleware.outgoing,
            clock=clock,
            retries_max=settings.retries_max,
            retry_pause_seconds=settings.retry_pause_seconds,
            message_bytes_max=settings.message_bytes_max,
        )
        self._credentials = channel_credentials(settings)
        self._channels: dict[tuple[str, str, bool], CallingChannel] = {}
        self._inner: dict[tuple[Way, str], grpc.aio.Channel] = {}
        self._server: MeshServer | None = None
        self.add("echo", partial(add_EchoServiceServicer_to_server, EchoServicer()))

    def add(self, service: str, register: Callable[[grpc.aio.Server], None]) -> None:
        """Serve what `register` adds: `partial(add_AccountServiceServicer_to_server, servicer)`.

        `service` is the name in the topology; call it before `start`, several times if need be.
        """
        if self._server is not None:
            raise RuntimeError(f"{service} comes too late: the process serves already")
        self._collector.collect(register)

    def channel(self, caller: str, target: str, *, repeat_unknown: bool = False) -> CallingChannel:
        """Return the channel on which `caller` reaches `target`, by the topology's way.

        Stubs on it raise PaymeshError (RemoteError). `repeat_unknown`: every request that is sent
        on it may be executed twice with the effect of one (it carries its `request_id`), so calls
        whose outcome is unknown are repeated. Raises TopologyError for an unknown target.
        """
        key = (caller, target, repeat_unknown)
        known = self._channels.get(key)
        if known is None:
            known = self._channels[key] = self._make(caller, target, repeat_unknown)
        return known

    def _make(self, caller: str, target: str, repeat_unknown: bool) -> CallingChannel:
        is_here = target in self._services
        way = self.topology.way_of(caller, target, is_local=is_here)
        address = self.topology.address_of(target)
        if way is Way.STREAM:
            # One stream to each process, whatever services it hosts.
            first = self.topology.services_of(self.topology.process_of(target))[0]
            address = self.topology.address_of(first)
        # A local channel is the caller's own, because it is what proves the caller's name.
        shared = (way, caller if way is Way.LOCAL else address)
        inner = self._inner.get(shared)
        if inner is None:
            inner = self._inner[shared] = self._open(way, caller, address)
        return CallingChannel(
            inner,
            self._calling,
            caller=caller,
            target=target,
            is_local=way is Way.LOCAL,
            is_plain=way is Way.UNARY,
            repeat_unknown=repeat_unknown,
        )

    def _open(self, way: Way, caller: str, address: str) -> grpc.aio.Channel:
        make = partial(dial, address, self._settings.message_bytes_max, self._credentials)
        if way is Way.LOCAL:
            return LocalChannel(self._dispatcher, caller, make)
        if way is Way.STREAM:
            return StreamChannel(
                make,
                target=address,
                service=self.process,
                settings=self._settings.stream,
                monotonic=self._clock.monotonic,
            )
        return make()

    async def start(self) -> None:
        """Listen on the ports of the process's services, and say that they are serving."""
        ports = dict.fromkeys(self.topology.port_of(service) for service in self._services)
        host = self._settings.listen_host
        self._server = MeshServer(
            self._dispatcher,
            self._collector,
            self._frames,
            self._settings,
            [f"{host}:{port}" for port in ports],
        )
        await self._server.start()

    @property
    def ports(self) -> list[int]:
        """The ports that the process listens on, in the order of its services."""
        return [] if self._server is None else self._server.ports

    @property
    def calls_in_flight(self) -> int:
        """Calls that are being served."""
        return self._dispatcher.in_flight

    async def drain(self, timeout_seconds: float) -> None:
        """Take no further calls and answer those that were accepted, then stop serving.

        Health says NOT_SERVING; peers on streams are told the last call that counts and send
        later ones elsewhere; after `timeout_seconds` what is left is cancelled. Channels to other
        services stay open until `close`, for the last words of background work.
        """
        server = self._server
        if server is None:
            return
        await server.say_not_serving()
        drained = asyncio.ensure_future(self._frames.drain())
        stopping = asyncio.ensure_future(server.stop(timeout_seconds))
        local = asyncio.ensure_future(self._wait_for_local(timeout_seconds))
        await asyncio.wait([drained, stopping, local], timeout=timeout_seconds)
        drained.cancel()
        local.cancel()
        await stopping
        await asyncio.gather(drained, local, return_exceptions=True)

    async def _wait_for_local(self, timeout_seconds: float) -> None:
        """Wait for calls inside the process, which no server counts."""
        until = self._clock.monotonic() + timeout_seconds
        # Polled: an event would cost every call something, and this runs once.
        while self._dispatcher.in_flight and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Close the channels to other services; call it after `drain`."""
        channels = list(self._inner.values())
        self._channels.clear()
        self._inner.clear()
        await asyncio.gather(
            *(cast("Any", channel.close(_CLOSE_GRACE_SECONDS)) for channel in channels)
        )
        self._deadlines.close()
