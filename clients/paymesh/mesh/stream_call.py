"""One unary call on a stream, with the face of a call of plain gRPC."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from paymesh.mesh.frames import Metadata

if TYPE_CHECKING:
    from paymesh.mesh.exchange import Exchange
    from paymesh.mesh.stream_channel import StreamChannel

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Progress(enum.IntEnum):
    """How far a call has got."""

    WAITING = 0
    """Nothing of it has left: it may be sent anywhere, and failing it is NOT_EXECUTED."""
    SENDING = 1
    """A part of it has left; the peer begins only when all of it has come."""
    WRITTEN = 2
    """All of it was given to the stream: without an answer its outcome is UNKNOWN."""
    DONE = 3


WAITING, SENDING, WRITTEN, DONE = Progress


class StreamCall(grpc.aio.UnaryUnaryCall[RequestT, ResponseT]):
    """A call that was put on a stream channel; awaiting it gives the response."""

    # Defaults of the class, so that a call sets only what it has: one is made for every hop.

    progress: Progress = Progress.WAITING
    call_id: int = 0
    """Number on its stream, once it has left."""
    exchange: Exchange | None = None
    """The stream that it left by."""
    bucket: set[StreamCall[Any, Any]] | None = None
    """Where its deadline is watched."""
    parts: list[bytes] | None = None
    response_bytes: int = 0
    """What has come of an answer in parts, and the size of all of it."""
    initial: Metadata = ()
    trailing: Metadata = ()
    waiting_since: float = 0.0
    """Instant from which it has waited for a peer that is away."""

    def __init__(
        self,
        channel: StreamChannel,
        method: StreamMethod[RequestT, ResponseT],
        payload: bytes,
        metadata: Metadata,
        deadline_at: float | None,
    ) -> None:
        self._channel = channel
        self.method = method
        self.payload = payload
        self.metadata = metadata
        self.deadline_at = deadline_at
        self.future: asyncio.Future[ResponseT] = channel.loop.create_future()

    def __await__(self) -> Generator[Any, None, ResponseT]:
        """Wait for the response; raises AioRpcError, or CancelledError after `cancel`."""
        future = self.future
        if not future.done():
            try:
                return (yield from future)
            except asyncio.CancelledError:
                # A cancelled task cancels the future that it waits for; tell the peer.
                if self.progress is not DONE:
                    self._channel.abandon(self)
                raise
        return future.result()

    def settle(self, response: ResponseT) -> None:
        """Give the response to whoever waits."""
        self.progress = DONE
        bucket = self.bucket
        if bucket is not None:
            bucket.discard(self)
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, error: grpc.aio.AioRpcError) -> None:
        """Give an error to whoever waits."""
        self._leave()
        if not self.future.done():
            self.trailing = cast("Metadata", tuple(error.trailing_metadata()))
            self.future.set_exception(error)

    def _leave(self) -> None:
        self.progress = DONE
        if self.bucket is not None:
            self.bucket.discard(self)
            self.bucket = None

    def cancel(self) -> bool:
        """Give the call up; the peer is told when it has left already."""
        if self.future.done():
            return False
        self._channel.abandon(self)
        return self.future.cancel()

    def forget(self) -> None:
        """Mark the call as given up by its caller."""
        self._leave()

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self.future.cancelled()

    def done(self) -> bool:
        """Say whether the call has ended."""
        return self.future.done()

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline; None without one."""
        if self.deadline_at is None:
            return None
        return max(0.0, self.deadline_at - self._channel.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when it ends."""
        self.future.add_done_callback(lambda _: callback(self))

    async def _ended(self) -> grpc.aio.AioRpcError | None:
        await asyncio.wait([self.future])
        if self.future.cancelled():
            return None
        error = self.future.exception()
        return error if isinstance(error, grpc.aio.AioRpcError) else None

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return the initial metadata; waits until the call has ended."""
        await self._ended()
        return grpc.aio.Metadata(*self.initial)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return the trailing metadata; waits until the call has ended."""
        await self._ended()
        return grpc.aio.Metadata(*self.trailing)

    async def code(self) -> grpc.StatusCode:
        """Return the status code; waits until the call has ended."""
        error = await self._ended()
        if self.future.cancelled():
            return grpc.StatusCode.CANCELLED
        if error is None:
            return grpc.StatusCode.OK
        return error.code()

    async def details(self) -> str:
        """Return the status message; waits until the call has ended."""
        error = await self._ended()
        return "" if error is None else str(error.details() or "")

    async def wait_for_connection(self) -> None:
        """Wait until the channel is connected."""
        await self._channel.channel_ready()


class StreamMethod(
    grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]
):
    """What a stub calls: one unary method on a stream channel."""

    def __init__(
        self,
        channel: StreamChannel,
        path: str,
        serializer: Callable[[RequestT], bytes] | None,
        deserializer: Callable[[bytes], ResponseT] | None,
    ) -> None:
        self._channel = channel
        self.path = path
        self._serializer = serializer
        self.deserializer = deserializer

    def __call__(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamCall[RequestT, ResponseT]:
        """Put a call on the stream; it leaves with the next frame.

        `timeout` is in seconds. `credentials` and `compression` belong to the stream and are
        ignored for single calls.
        """
        channel = self._channel
        payload = cast("bytes", request) if self._serializer is None else self._serializer(request)
        pairs: Metadata = ()
        if metadata is not None:
            pairs = metadata if type(metadata) is tuple else tuple(metadata)
        deadline_at = None if timeout is None else channel.monotonic() + timeout
        call = StreamCall(channel, self, payload, pairs, deadline_at)
        channel.submit(call)
        return call
