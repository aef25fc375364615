"""Channels that services are given: plain stubs on them do all that a call between services needs.

The deadline is chosen, the circumstances are written, failures arrive as errors of ours with
their `outcome`, and what may be repeated is repeated: a call that surely did nothing, or one whose
contract or channel says that the same request may come twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

import grpc
import grpc.aio

from common.clock import Clock
from common.context import current
from common.errors import (
    DeadlineExceededError,
    MessageTooLargeError,
    Outcome,
    PaymeshError,
    RemoteError,
    Retry,
)
from common.mesh.chain_order import order
from common.mesh.collector import find_method, may_repeat
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware
from common.mesh.status import as_remote, error_of

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_BUDGET_MAX: Final = 20.0
_BUDGET_PER_SUCCESS: Final = 0.1
"""A target's budget for repeats: each costs one, each success gives back a tenth, and below half
of the budget nothing is repeated. So repeats never add more than a tenth to a target's load."""


class RetryBudget:
    """Bounds repeats to a share of the calls that succeed."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _BUDGET_MAX

    def earn(self) -> None:
        """Count a success."""
        if self._tokens < _BUDGET_MAX:
            self._tokens = min(_BUDGET_MAX, self._tokens + _BUDGET_PER_SUCCESS)

    def spend(self) -> bool:
        """Take one repeat; say whether there was one left."""
        if self._tokens <= _BUDGET_MAX / 2:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Calling:
    """What all channels of a process share."""

    middleware: tuple[OutgoingMiddleware, ...]
    clock: Clock
    retries_max: int
    retry_pause_seconds: float
    message_bytes_max: int
    chance: Callable[[], float] = random.random


def _after_repeats(error: RemoteError) -> RemoteError:
    """Return the failure of a call of which an earlier attempt may have been executed.

    A repeat that was refused for good is the call's answer: repeats get the first one's. A repeat
    that came to nothing says of itself only that it did nothing.
    """
    is_open = error.retry in (Retry.SAME_ID, Retry.AFTER_DELAY)
    if error.outcome is Outcome.NOT_EXECUTED and is_open:
        error.outcome = Outcome.UNKNOWN
    return error


class CallingCall(grpc.aio.UnaryUnaryCall[RequestT, ResponseT]):
    """A call between services; awaiting it gives the response or raises a PaymeshError."""

    __slots__ = (
        "_attempts",
        "_call",
        "_deadline_at",
        "_failure",
        "_inner",
        "_method",
        "_pairs",
        "_passed",
        "_request",
        "_task",
    )

    def __init__(
        self,
        method: CallingMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        pairs: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        self._method = method
        self._request = request
        clock = method.channel.calling.clock
        self._deadline_at = None if timeout is None else clock.monotonic() + timeout
        self._pairs = pairs
        self._attempts = 0
        self._inner: grpc.aio.UnaryUnaryCall[RequestT, ResponseT] | None = None
        self._failure: RemoteError | None = None
        self._begin()

    def _begin(self) -> None:
        """Pass the middleware and let one attempt leave."""
        method = self._method
        channel = method.channel
        self._call = call = OutgoingCall(
            method.path,
            channel.caller,
            channel.target,
            current(),
            channel.calling.clock.monotonic(),
            self._deadline_at,
            list(self._pairs),
            is_local=channel.is_local,
        )
        self._passed = 0
        self._attempts += 1
        try:
            for before in channel.befores:
                before(call)
                self._passed += 1
            timeout = call.deadline_at
            if timeout is not None:
                timeout -= call.started_at
            self._inner = method.begin(self._request, timeout, tuple(call.metadata))
        except PaymeshError as error:
            self._inner = None
            self._failure = as_remote(error)
            self._end(self._failure)

    def _end(self, error: BaseException | None) -> None:
        for after in self._method.channel.afters[self._passed]:
            after(self._call, error)

    def __await__(self) -> Generator[Any, None, ResponseT]:
        """Wait for the response; raises RemoteError, also when the call could not leave."""
        inner = self._inner
        if inner is not None:
            try:
                response = yield from inner.__await__()
            except grpc.RpcError as failed:
                error = error_of(failed)
            except asyncio.CancelledError:
                self._end(asyncio.CancelledError())
                raise
            else:
                self._end(None)
                self._method.channel.budget.earn()
                return response
            self._end(error)
        else:
            error = cast("RemoteError", self._failure)
        return (yield from self._recover(error).__await__())

    async def _recover(self, error: RemoteError) -> ResponseT:
        """Repeat the call while that is safe and worth it; else raise."""
        channel = self._method.channel
        calling = channel.calling
        may_have_executed = False
        while self._may_repeat(error) and channel.budget.spend():
            may_have_executed = may_have_executed or error.outcome is Outcome.UNKNOWN
            pause = calling.retry_pause_seconds * 2 ** (self._attempts - 1)
            pause *= 0.5 + calling.chance()
            if error.retry_after_seconds is not None:
                pause = max(pause, error.retry_after_seconds)
            deadline_at = self._call.deadline_at
            if deadline_at is not None and calling.clock.monotonic() + pause >= deadline_at:
                break
            await asyncio.sleep(pause)
            # A repeat lives within the deadline that the first attempt was given.
            self._deadline_at = deadline_at
            self._failure = None
            self._begin()
            if self._inner is None:
                error = cast("RemoteError", self._failure)
                continue
            try:
                response = await self._inner
            except grpc.RpcError as failed:
                error = error_of(failed)
                self._end(error)
            except asyncio.CancelledError:
                self._end(asyncio.CancelledError())
                raise
            else:
                self._end(None)
                return response
        raise _after_repeats(error) if may_have_executed else error

    def _may_repeat(self, error: RemoteError) -> bool:
        """Say whether a repeat is safe: `outcome` decides, the status code never."""
        if self._attempts > self._method.channel.calling.retries_max:
            return False
        if error.retry not in (Retry.SAME_ID, Retry.AFTER_DELAY):
            return False
        if error.remote_reason == DeadlineExceededError.reason:
            return False
        if error.outcome is Outcome.NOT_EXECUTED:
            return True
        return error.outcome is Outcome.UNKNOWN and self._method.repeats

    # The rest of gRPC's interface speaks of the attempt under way.

    def cancel(self) -> bool:
        """Give the call up."""
        return self._inner is not None and self._inner.cancel()

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self._inner is not None and self._inner.cancelled()

    def done(self) -> bool:
        """Say whether the attempt has ended."""
        return self._inner is None or self._inner.done()

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline."""
        return None if self._inner is None else self._inner.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when the attempt ends."""
        if self._inner is None:
            asyncio.get_running_loop().call_soon(callback, self)
        else:
            self._inner.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return the initial metadata of the attempt."""
        return grpc.aio.Metadata() if self._inner is None else await self._inner.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return the trailing metadata of the attempt."""
        if self._inner is None:
            return grpc.aio.Metadata()
        return await self._inner.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Return the status code of the attempt; CANCELLED for one that never left."""
        return grpc.StatusCode.CANCELLED if self._inner is None else await self._inner.code()

    async def details(self) -> str:
        """Return the status message of the attempt."""
        return str(self._failure) if self._inner is None else await self._inner.details()

    async def wait_for_connection(self) -> None:
        """Wait until the attempt's channel is connected."""
        if self._inner is not None:
            await self._inner.wait_for_connection()


class CallingMethod(
    grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]
):
    """What a stub calls: one unary method of another service."""

    def __init__(
        self,
        channel: CallingChannel,
        path: str,
        serializer: Callable[[RequestT], bytes] | None,
        deserializer: Callable[[bytes], ResponseT] | None,
    ) -> None:
        self.channel = channel
        self.path = path
        self.repeats = channel.repeat_unknown or may_repeat(find_method(path))
        self._message_bytes_max = channel.calling.message_bytes_max
        # Plain gRPC gets bytes, so that a request above the limit is refused here, with its
        # reason; the other ways check sizes themselves.
        self._serializer = serializer if channel.is_plain else None
        self._inner = channel.inner.unary_unary(
            path, None if channel.is_plain else serializer, deserializer
        )

    def begin(
        self,
        request: RequestT,
        timeout: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> grpc.aio.UnaryUnaryCall[RequestT, ResponseT]:
        """Let one attempt leave; raises MessageTooLargeError."""
        serializer = self._serializer
        if serializer is None:
            return self._inner(request, timeout=timeout, metadata=metadata)
        payload = serializer(request)
        if len(payload) > self._message_bytes_max:
            raise MessageTooLargeError(limit_bytes=self._message_bytes_max)
        return self._inner(payload, timeout=timeout, metadata=metadata)

    def __call__(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> CallingCall[RequestT, ResponseT]:
        """Begin a call; `timeout` in seconds shortens the deadline, never lengthens it."""
        return CallingCall(self, request, timeout, tuple(metadata) if metadata else ())


class CallingChannel(grpc.aio.Channel):
    """A channel bound to the name of its caller, over any of the three ways."""

    def __init__(
        self,
        inner: grpc.aio.Channel,
        calling: Calling,
        *,
        caller: str,
        target: str,
        is_local: bool = False,
        is_plain: bool = False,
        repeat_unknown: bool = False,
    ) -> None:
        self.inner = inner
        self.calling = calling
        self.caller = caller
        self.target = target
        self.is_local = is_local
        self.is_plain = is_plain
        self.repeat_unknown = repeat_unknown
        self.budget = RetryBudget()
        self.befores, self.afters = order(calling.middleware, OutgoingMiddleware)
        self._methods: dict[str, CallingMethod[Any, Any]] = {}

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> CallingMethod[Any, Any]:
        """Return the callable of a unary method; the same one each time, so stubs are cheap."""
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = CallingMethod(
                self, method, request_serializer, response_deserializer
            )
        return known

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """Return the callable of a server-streaming method, over plain gRPC, without middleware."""
        return self.inner.unary_stream(method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """Return the callable of a client-streaming method, over plain gRPC, without middleware."""
        return self.inner.stream_unary(method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """Return the callable of a method with streams, over plain gRPC, without middleware."""
        return self.inner.stream_stream(method, request_serializer, response_deserializer)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the channel below."""
        return self.inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for another state of the channel below."""
        await self.inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel below is connected."""
        await self.inner.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: the channel below is shared and belongs to the host."""

    async def __aenter__(self) -> CallingChannel:
        """Return the channel itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Do nothing: the channel below belongs to the host."""
