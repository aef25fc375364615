"""A channel for generated stubs that carries all their unary calls over one stream.

It keeps the stream alive: it connects when the first call comes, again with growing pauses when
the peer has gone, and from time to time just so, each time on a new connection that resolves the
target's name afresh, so that new instances of the peer get their share.

What a failed call did is always said (`paymesh.mesh.errors`): a call that never left is
NOT_EXECUTED, one that left and was not answered is UNKNOWN. Calls that the peer did not begin
before it drained are sent again by the channel itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from paymesh.mesh import errors
from paymesh.mesh.deadlines import Deadlines
from paymesh.mesh.exchange import BROKEN, AnyCall, Exchange
from paymesh.mesh.frames import Limits, Metadata
from paymesh.mesh.stream_call import DONE, WAITING, StreamMethod

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

Dial = Callable[[], grpc.aio.Channel]
"""Makes a new plain channel to the target."""

_BACKOFF_GROWTH: Final = 2.0
_CONNECT_USUAL_SECONDS: Final = 1.0
"""What a connection to a peer that is well may take on a busy machine: calls wait so much longer
than their patience before they take a peer that says nothing for one that is away."""
_PATIENCE_CHECK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream channel behaves."""

    limits: Limits = field(default_factory=Limits)
    """What this side takes; `calls_max` also bounds the calls that wait."""

    connect_timeout_seconds: float = 5.0
    """Longest that one attempt to open the stream may take."""

    patience_seconds: float = 1.0
    """How long a call waits for a peer that is away before it fails. A restart takes about half a
    second, so calls pass through one without being failed."""

    backoff_first_seconds: float = 0.02
    backoff_max_seconds: float = 1.0
    """Pause after the first failed attempt, and the longest; each doubles the one before, with a
    fifth of chance, so that callers of a dead peer do not come back at the same instant."""

    age_max_seconds: float = 300.0
    """A stream older than this is replaced by a new connection, with the same fifth of chance."""


class StreamChannel(grpc.aio.Channel):
    """A grpc.aio channel whose unary calls share one `MeshService/Exchange` stream.

    `dial` makes a plain channel to the target: one for every stream, and one more for methods
    with streams of their own, which plain gRPC carries. `service` names the caller in the hello.
    `open_metadata` is asked for the metadata of each new stream.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        target: str = "",
        service: str = "",
        settings: StreamSettings | None = None,
        open_metadata: Callable[[], Metadata] = tuple,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.target = target
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[AnyCall] = deque()
        self._settings = settings or StreamSettings()
        self.limits = self._settings.limits
        self._dial = dial
        self._service = service
        self._open_metadata = open_metadata
        self._monotonic = monotonic
        self._chance = chance
        self._plain: grpc.aio.Channel | None = None
        self._exchange: Exchange | None = None
        self._retiring: set[Exchange] = set()
        self._deadlines: Deadlines[AnyCall] = Deadlines(self._expire, monotonic)
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[None]] = set()
        self._state = grpc.ChannelConnectivity.IDLE
        self._state_changed: list[asyncio.Future[None]] = []
        self._replace: asyncio.TimerHandle | None = None

    # What calls and exchanges need.

    def monotonic(self) -> float:
        """Return the time that deadlines are measured in, in seconds."""
        return self._monotonic()

    def submit(self, call: AnyCall) -> None:
        """Take a new call: it leaves with the next frame, or fails at once."""
        if self._state is grpc.ChannelConnectivity.SHUTDOWN:
            call.fail(errors.unavailable(self.target, errors.NOT_EXECUTED))
            return
        exchange = self._exchange
        limits = self.limits
        busy = len(self.waiting) + (0 if exchange is None else exchange.in_flight)
        if busy >= limits.calls_max:
            call.fail(errors.overloaded(limits.calls_max))
            return
        if len(call.payload) > limits.message_bytes_max:
            limit = limits.message_bytes_max
            call.fail(errors.message_too_large(limit, errors.NOT_EXECUTED))
            return
        deadline_at = call.deadline_at
        if deadline_at is not None:
            call.bucket = self._deadlines.add(call, deadline_at)
        self.waiting.append(call)
        if exchange is not None:
            exchange.wake()
            return
        call.waiting_since = self._monotonic()
        self._want()

    def abandon(self, call: AnyCall) -> None:
        """Give a call up: its caller does not wait any more."""
        sent = call.progress not in (WAITING, DONE)
        call.forget()
        if sent and call.exchange is not None:
            call.exchange.abandon(call)

    def retire(self, exchange: Exchange) -> None:
        """Use another stream from now on; `exchange` drains or has ended."""
        if self._exchange is exchange:
            self._exchange = None
            self._cancel_replacement()
            self._become(grpc.ChannelConnectivity.IDLE)
            now = self._monotonic()
            for call in self.waiting:
                call.waiting_since = now
        if self.waiting:
            # Perhaps given back just now by a stream that had been replaced already.
            if self._exchange is not None:
                self._exchange.wake()
            else:
                self._want()
        if exchange.ended.done():
            self._retiring.discard(exchange)
            self._spawn(exchange.close())
        else:
            self._retiring.add(exchange)

    def _expire(self, call: AnyCall) -> None:
        call.bucket = None
        outcome = errors.NOT_EXECUTED if call.progress is WAITING else errors.UNKNOWN
        self.abandon(call)
        call.fail(errors.deadline_exceeded(outcome))

    # Keeping a stream open.

    def _want(self) -> None:
        if self._state is grpc.ChannelConnectivity.SHUTDOWN:
            return
        if self._keeper is None:
            self._keeper = asyncio.ensure_future(self._keep())
        self._wanted.set()

    async def _keep(self) -> None:
        pause = self._settings.backoff_first_seconds
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._exchange is not None:
                continue
            self._become(grpc.ChannelConnectivity.CONNECTING)
            if await self._connect_patiently():
                pause = self._settings.backoff_first_seconds
                continue
            self._become(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
            self._fail_impatient()
            await asyncio.sleep(pause * self._spread())
            pause = min(pause * _BACKOFF_GROWTH, self._settings.backoff_max_seconds)
            if self.waiting or self._state_changed:
                self._wanted.set()
            else:
                # Nobody waits: the next call begins anew, without paying for old failures.
                pause = self._settings.backoff_first_seconds
                self._become(grpc.ChannelConnectivity.IDLE)

    def _spread(self) -> float:
        return 0.8 + 0.4 * self._chance()

    async def _connect_patiently(self) -> bool:
        """Connect; meanwhile calls wait no longer than they would for a peer that refuses.

        A peer that stands still takes a connection and says nothing: the attempt lasts as long as
        it may, which is longer than a call has patience.
        """
        connecting = asyncio.ensure_future(self._connect())
        try:
            while True:
                await asyncio.wait([connecting], timeout=_PATIENCE_CHECK_SECONDS)
                if connecting.done():
                    return connecting.result()
                self._fail_impatient(_CONNECT_USUAL_SECONDS)
        except asyncio.CancelledError:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            raise

    async def _connect(self) -> bool:
        channel = self._dial()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                exchange = await Exchange.open(
                    self, channel, self._service, tuple(self._open_metadata())
                )
        except (*BROKEN, TimeoutError):
            await channel.close(None)
            return False
        except asyncio.CancelledError:
            self._spawn(channel.close(None))
            raise
        self._exchange = exchange
        age = self._settings.age_max_seconds * self._spread()
        self._replace = self.loop.call_later(age, self._replace_stream)
        self._become(grpc.ChannelConnectivity.READY)
        exchange.wake()
        return True

    def _fail_impatient(self, longer_seconds: float = 0.0) -> None:
        """Fail the calls that have waited long enough for a peer that is away."""
        before = self._monotonic() - self._settings.patience_seconds - longer_seconds
        kept: list[AnyCall] = []
        while self.waiting:
            call = self.waiting.popleft()
            if call.progress is DONE:
                continue
            if call.waiting_since <= before:
                call.fail(errors.unavailable(self.target, errors.NOT_EXECUTED))
            else:
                kept.append(call)
        self.waiting.extend(kept)

    def _replace_stream(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self.retire(exchange)
        exchange.stop()

    def _cancel_replacement(self) -> None:
        if self._replace is not None:
            self._replace.cancel()
            self._replace = None

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._closers.add(task)
        task.add_done_callback(self._closers.discard)

    # The face of a grpc.aio channel.

    def _become(self, state: grpc.ChannelConnectivity) -> None:
        if self._state is state or self._state is grpc.ChannelConnectivity.SHUTDOWN:
            return
        self._state = state
        changed, self._state_changed = self._state_changed, []
        for waiter in changed:
            if not waiter.done():
                waiter.set_result(None)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return whether the stream is open; with `try_to_connect`, begin to open it."""
        if try_to_connect and self._state is grpc.ChannelConnectivity.IDLE:
            self._want()
        return self._state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another than `last_observed_state`."""
        while self._state is last_observed_state:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._state_changed.append(waiter)
            await waiter

    async def channel_ready(self) -> None:
        """Return when the stream is open; connects when it is not."""
        while self._state is not grpc.ChannelConnectivity.READY:
            state = self.get_state(try_to_connect=True)
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Take no further calls; wait up to `grace` seconds for answers, then fail the rest."""
        if self._state is grpc.ChannelConnectivity.SHUTDOWN:
            return
        self._become(grpc.ChannelConnectivity.SHUTDOWN)
        exchanges = [*self._retiring, *([self._exchange] if self._exchange else [])]
        if grace and exchanges:
            for exchange in exchanges:
                if not self.waiting:
                    exchange.stop()
            await asyncio.wait([exchange.ended for exchange in exchanges], timeout=grace)
        self._cancel_replacement()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for exchange in exchanges:
            await exchange.close()
        while self.waiting:
            self.waiting.popleft().fail(errors.unavailable(self.target, errors.NOT_EXECUTED))
        self._deadlines.close()
        if self._plain is not None:
            await self._plain.close(grace)
        if self._closers:
            await asyncio.gather(*self._closers, return_exceptions=True)

    async def __aenter__(self) -> StreamChannel:
        """Return the channel itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close the channel."""
        await self.close(None)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamMethod[Any, Any]:
        """Return the callable of a unary method."""
        return StreamMethod(self, method, request_serializer, response_deserializer)

    def _plain_channel(self) -> grpc.aio.Channel:
        if self._plain is None:
            self._plain = self._dial()
        return self._plain

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """Return the callable of a server-streaming method, which plain gRPC carries."""
        return self._plain_channel().unary_stream(method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """Return the callable of a client-streaming method, which plain gRPC carries."""
        return self._plain_channel().stream_unary(method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """Return the callable of a method with streams both ways, which plain gRPC carries."""
        return self._plain_channel().stream_stream(
            method, request_serializer, response_deserializer
        )
