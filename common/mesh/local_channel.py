"""The way of a call inside one process: a copy of the message, and a task of its own.

It behaves as the other ways do. Messages are copied in and out, so that neither side sees what
the other does to its own; the servicer runs in an empty context, as it would in another process;
the deadline and the caller's cancellation stop it; failures arrive as the same AioRpcError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from paymesh.mesh import errors as wire
from paymesh.mesh.deadlines import Deadlines

from common.errors import MessageTooLargeError, MethodUnknownError
from common.mesh.dispatch import Dispatcher
from common.mesh.incoming import IncomingCall, Metadata, Method
from common.mesh.status import rpc_error_of, status_of

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
MessageT = TypeVar("MessageT", bound=Message)


def copy_of(message: MessageT) -> MessageT:
    """Return a message of its own with the same content."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


class LocalCall(grpc.aio.UnaryUnaryCall[RequestT, ResponseT]):
    """A call to a servicer of the same process."""

    def __init__(self, channel: LocalChannel, deadline_at: float | None) -> None:
        self._channel = channel
        self._future: asyncio.Future[ResponseT] = channel.loop.create_future()
        self._call: IncomingCall | None = None
        self.deadline_at = deadline_at
        self.bucket: set[LocalCall[Any, Any]] | None = None
        self.trailing: Metadata = ()

    def begin(self, method: Method, request: Message, metadata: Metadata, now: float) -> None:
        """Hand a copy of the request to the servicer, in a task and context of its own."""
        channel = self._channel
        dispatcher = channel.dispatcher
        self._call = call = IncomingCall(
            method, dispatcher.clock, now, metadata, self.deadline_at, channel.caller
        )
        call.carry(request=copy_of(request))
        call.peer_address = "local:"
        call.task = channel.loop.create_task(
            dispatcher.run(call, encode=False, ended=self._deliver), context=Context()
        )
        if self.deadline_at is not None:
            self.bucket = channel.deadlines.add(self, self.deadline_at)

    def _deliver(self, call: IncomingCall) -> None:
        if self.bucket is not None:
            self.bucket.discard(self)
        self.trailing = call.trailing
        future = self._future
        if future.done():
            return
        if call.status is not None:
            future.set_exception(rpc_error_of(call.status, call.trailing))
        else:
            future.set_result(copy_of(call.response))

    def expire(self) -> None:
        """Fail the call: its time is over."""
        self.bucket = None
        if not self._future.done():
            self.fail(wire.deadline_exceeded(wire.UNKNOWN))
        if self._call is not None and self._call.task is not None:
            self._call.expired = True
            self._call.task.cancel()

    def fail(self, error: grpc.aio.AioRpcError) -> None:
        """End the call with an error."""
        self.trailing = cast("Metadata", tuple(error.trailing_metadata()))
        self._future.set_exception(error)

    def __await__(self) -> Generator[Any, None, ResponseT]:
        """Wait for the response; raises AioRpcError, or CancelledError after `cancel`."""
        future = self._future
        if not future.done():
            try:
                return (yield from future)
            except asyncio.CancelledError:
                self._stop()
                raise
        return future.result()

    def _stop(self) -> None:
        if self._call is not None and self._call.task is not None:
            self._call.task.cancel()

    def cancel(self) -> bool:
        """Give the call up: the servicer's task is cancelled."""
        if self._future.done():
            return False
        self._stop()
        return self._future.cancel()

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self._future.cancelled()

    def done(self) -> bool:
        """Say whether the call has ended."""
        return self._future.done()

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline; None without one."""
        if self.deadline_at is None:
            return None
        return max(0.0, self.deadline_at - self._channel.dispatcher.clock.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when it ends."""
        self._future.add_done_callback(lambda _: callback(self))

    async def _ended(self) -> grpc.aio.AioRpcError | None:
        await asyncio.wait([self._future])
        if self._future.cancelled():
            return None
        error = self._future.exception()
        return error if isinstance(error, grpc.aio.AioRpcError) else None

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return the initial metadata; waits until the call has ended."""
        await self._ended()
        return grpc.aio.Metadata(*(self._call.initial if self._call else ()))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return the trailing metadata; waits until the call has ended."""
        await self._ended()
        return grpc.aio.Metadata(*self.trailing)

    async def code(self) -> grpc.StatusCode:
        """Return the status code; waits until the call has ended."""
        error = await self._ended()
        if self._future.cancelled():
            return grpc.StatusCode.CANCELLED
        if error is None:
            return grpc.StatusCode.OK
        return error.code()

    async def details(self) -> str:
        """Return the status message; waits until the call has ended."""
        error = await self._ended()
        return "" if error is None else str(error.details() or "")

    async def wait_for_connection(self) -> None:
        """Return at once: there is nothing to connect."""


class LocalMethod(
    grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]
):
    """What a stub calls: one unary method of the same process."""

    def __init__(self, channel: LocalChannel, path: str) -> None:
        self._channel = channel
        self._path = path

    def __call__(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> LocalCall[RequestT, ResponseT]:
        """Begin a call; `timeout` is in seconds."""
        channel = self._channel
        dispatcher = channel.dispatcher
        now = dispatcher.clock.monotonic()
        deadline_at = None if timeout is None else now + timeout
        call: LocalCall[RequestT, ResponseT] = LocalCall(channel, deadline_at)
        method = dispatcher.methods.get(self._path)
        message = cast("Message", request)
        if method is None:
            call.fail(rpc_error_of(status_of(MethodUnknownError(method=self._path))))
        elif message.ByteSize() > dispatcher.message_bytes_max:
            error = MessageTooLargeError(limit_bytes=dispatcher.message_bytes_max)
            call.fail(rpc_error_of(status_of(error)))
        else:
            call.begin(method, message, tuple(metadata) if metadata is not None else (), now)
        return call


class LocalChannel(grpc.aio.Channel):
    """A channel to the servicers of the same process, bound to the name of its caller."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        caller: str,
        plain: Callable[[], grpc.aio.Channel] | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.caller = caller
        self.loop = asyncio.get_running_loop()
        self.deadlines: Deadlines[LocalCall[Any, Any]] = Deadlines(
            LocalCall.expire, dispatcher.clock.monotonic
        )
        self._make_plain = plain
        self._plain: grpc.aio.Channel | None = None

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> LocalMethod[Any, Any]:
        """Return the callable of a unary method."""
        return LocalMethod(self, method)

    def _plain_channel(self) -> grpc.aio.Channel:
        if self._plain is None:
            if self._make_plain is None:
                raise grpc.aio.UsageError("methods with streams need a plain channel")
            self._plain = self._make_plain()
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

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return READY: there is nothing to connect."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for a change, which READY never makes."""
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await self.loop.create_future()

    async def channel_ready(self) -> None:
        """Return at once."""

    async def close(self, grace: float | None = None) -> None:
        """Forget deadlines; the servicers belong to the process."""
        self.deadlines.close()
        if self._plain is not None:
            await self._plain.close(grace)

    async def __aenter__(self) -> LocalChannel:
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
