"""Calls between processes: they take time, get lost, come twice and overtake each other.

A call goes through the production middleware on both sides, as over a stream; only what carries it
is played. What its caller hears is what a real stream would say: a call that never left is
NOT_EXECUTED, one that left and was not answered is UNKNOWN or runs into its deadline. A request
that is under way arrives though its caller has died; when the callee dies, its callers hear so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from paymesh.mesh import errors as wire

from common.mesh.calling import Calling, CallingChannel
from common.mesh.chain import Chain
from common.mesh.collector import Collector
from common.mesh.dispatch import Dispatcher
from common.mesh.incoming import IncomingCall, Metadata, expire
from common.mesh.local_channel import LocalCall, LocalChannel, LocalMethod, copy_of
from common.mesh.status import rpc_error_of
from common.service import Register
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedClock, SimulatedLoop
from tests.simulation.process import Process, check_alive

_MESSAGE_BYTES_MAX: Final = 4 << 20
_NOBODY: Final = Context()
"""The context of what nobody's death stops: messages under way."""


def later(loop: SimulatedLoop, seconds: float, work: Callable[..., None], *given: Any) -> None:
    """Do something in nobody's name after some seconds."""
    loop.call_later(seconds, work, *given, context=_NOBODY)


class Server:
    """What one process serves."""

    def __init__(self, process: Process, dispatcher: Dispatcher) -> None:
        self.process = process
        self.dispatcher = dispatcher
        # In the order in which they came.
        self.calls: dict[SimulatedCall, None] = {}


class Network:
    """Where processes find each other."""

    def __init__(self, loop: SimulatedLoop, clock: SimulatedClock, faults: Faults) -> None:
        self.loop = loop
        self.clock = clock
        self.faults = faults
        self._servers: dict[str, list[Server]] = {}

    def serve(self, process: Process, register: list[Register], chain: Chain) -> None:
        """Let a process answer for its service, until it dies."""
        collector = Collector()
        for one in register:
            collector.collect(one)
        dispatcher = Dispatcher(collector.methods, chain.incoming, self.clock, _MESSAGE_BYTES_MAX)
        server = Server(process, dispatcher)
        self._servers.setdefault(process.service, []).append(server)
        process.at_death.append(partial(self._gone, server))

    def find(self, service: str) -> Server | None:
        """Return one of those who answer for a service now."""
        servers = self._servers.get(service)
        if not servers:
            return None
        return servers[0] if len(servers) == 1 else self.faults.chance.choice(servers)

    def channel(
        self, caller: str, target: str, chain: Chain, *, repeat_unknown: bool = False
    ) -> CallingChannel:
        """Return the channel on which `caller` reaches `target`."""
        calling = Calling(
            middleware=chain.outgoing,
            clock=self.clock,
            retries_max=2,
            retry_pause_seconds=0.02,
            message_bytes_max=_MESSAGE_BYTES_MAX,
            chance=random.random,  # seeded with the world
        )
        inner = SimulatedChannel(self, caller, target)
        return CallingChannel(
            inner, calling, caller=caller, target=target, repeat_unknown=repeat_unknown
        )

    def _gone(self, server: Server) -> None:
        self._servers[server.process.service].remove(server)
        broken = list(server.calls)
        server.calls.clear()
        for call in broken:
            later(self.loop, self.faults.between(0.001, 0.05), call.break_off)


class SimulatedChannel(LocalChannel):
    """A channel to whichever process answers for a service when a request arrives."""

    def __init__(self, network: Network, caller: str, target: str) -> None:
        self.network = network
        self.target = target
        self.caller = caller
        self.loop = network.loop

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> SimulatedMethod:
        """Return the callable of a unary method."""
        return SimulatedMethod(self, method)

    async def close(self, grace: float | None = None) -> None:
        """Nothing to close."""


class SimulatedMethod(LocalMethod[Any, Any]):
    """What a stub calls."""

    def __init__(self, channel: SimulatedChannel, path: str) -> None:
        self._way = channel
        self._route = path

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> SimulatedCall:
        """Let a request leave."""
        check_alive()
        now = self._way.loop.time()
        call = SimulatedCall(self._way, self._route, None if timeout is None else now + timeout)
        call.leave(cast("Message", copy_of(request)), tuple(metadata or ()))
        return call


class SimulatedCall(LocalCall[Any, Any]):
    """A call on its way, there and back."""

    def __init__(self, channel: SimulatedChannel, path: str, deadline_at: float | None) -> None:
        super().__init__(channel, deadline_at)
        self._network = channel.network
        self._target = channel.target
        self._caller = channel.caller
        self._path = path
        self._served: list[IncomingCall] = []
        self._is_over = False
        """No further copy of the request arrives."""
        self._timer: asyncio.TimerHandle | None = None

    def leave(self, request: Message, metadata: Metadata) -> None:
        """Put the request on its way, perhaps twice, perhaps into the void."""
        network, faults = self._network, self._network.faults
        network.loop.note(f"{self._caller} calls {self._path.rpartition('/')[2]}")
        if self.deadline_at is not None:
            self._timer = network.loop.call_at(self.deadline_at, self.expire, context=_NOBODY)
        slow = faults.between(0.5, 7.0) if faults.happens("call slow") else 0.0
        pause = faults.between(0.0005, 0.02) + slow
        if faults.happens("request dropped"):
            self._lose(pause)
            return
        later(network.loop, pause, self._arrive, request, metadata)
        if faults.happens("call repeated"):
            again = pause + faults.between(0.0, 3.0)
            later(network.loop, again, self._arrive, copy_of(request), metadata)

    def _lose(self, pause: float) -> None:
        """Let the caller hear of a broken stream, or of nothing until its deadline."""
        if self._network.faults.chance.random() < 0.5:
            later(self._network.loop, pause, self.break_off)

    def _arrive(self, request: Message, metadata: Metadata) -> None:
        network = self._network
        if self._is_over:
            return
        server = network.find(self._target)
        if server is None and self._served:
            return
        if server is None:
            self._end(wire.unavailable(self._target, wire.NOT_EXECUTED))
            return
        dispatcher = server.dispatcher
        now = network.loop.time()
        call = IncomingCall(
            dispatcher.methods[self._path], network.clock, now, metadata, self.deadline_at
        )
        call.carry(request=request)
        call.peer_address = "simulated:"
        self._served.append(call)
        server.calls[self] = None
        call.task = server.process.spawn(
            dispatcher.run(call, encode=False, ended=partial(self._answer, server)), self._path
        )

    def _answer(self, server: Server, call: IncomingCall) -> None:
        server.calls.pop(self, None)
        if not server.process.is_alive:
            return
        faults, loop = self._network.faults, self._network.loop
        slow = faults.between(0.5, 7.0) if faults.happens("call slow") else 0.0
        pause = faults.between(0.0005, 0.02) + slow
        if faults.happens("answer dropped"):
            self._lose(pause)
        elif call.status is not None:
            later(loop, pause, self._end, rpc_error_of(call.status, call.trailing))
        elif call.response is not None:
            later(loop, pause, self._hear, copy_of(call.response))

    def _hear(self, response: Message) -> None:
        if not self._future.done():
            self._stop_timer()
            self._future.set_result(response)

    def _end(self, error: grpc.aio.AioRpcError) -> None:
        if wire.decode(error).outcome == wire.NOT_EXECUTED:
            # Copies come of repeats that the caller's channel makes, which go on only while it
            # has no answer, and which say UNKNOWN when one of them may have been executed.
            self._is_over = True
            if len(self._served) > 1:
                error = wire.unavailable(self._target, wire.UNKNOWN)
        if not self._future.done():
            self._stop_timer()
            self.fail(error)

    def break_off(self) -> None:
        """Fail the call: its stream broke after it had left."""
        self._end(wire.unavailable(self._target, wire.UNKNOWN))

    def expire(self) -> None:
        """Fail the call: its time is over, on both sides."""
        self._end(wire.deadline_exceeded(wire.UNKNOWN))
        for call in self._served:
            expire(call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _stop(self) -> None:
        self._stop_timer()
        for call in self._served:
            if call.task is not None:
                later(self._network.loop, 0.001, _cancel, call.task)

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline; None without one."""
        if self.deadline_at is None:
            return None
        return max(0.0, self.deadline_at - self._network.loop.time())


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
