"""The callee's end of `MeshService/Exchange`: a task for each call, answers in shared frames.

The peer may be of another version, broken or hostile. Whatever concerns one call is answered to
that call; whatever breaks the protocol itself ends the stream with a status that says why. Nothing
that a peer sends makes this side keep more than the limits it named in its hello.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from paymesh.mesh.deadlines import Deadlines
from paymesh.mesh.frames import Limits, ProtocolError, limits_of
from paymesh.mesh.v1 import ExchangeRequest

from common.mesh.dispatch import Dispatcher
from common.mesh.incoming import IncomingCall
from common.mesh.served_stream import AssemblyBudget, FrameTooLargeError, ServedStream

ASSEMBLING_BYTES_MAX: Final = 67_108_864
"""Most bytes of unfinished requests that all streams of a process keep together."""

HELLO_TIMEOUT_SECONDS: Final = 10.0
"""A peer that opens a stream and says nothing is sent away."""

StreamContext = grpc.aio.ServicerContext[Any, Any]


class FrameServer:
    """Serves the streams of all peers of one process."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        limits: Limits,
        name: str,
        deadlines: Deadlines[IncomingCall],
        identities_of: Callable[[StreamContext], frozenset[str] | None] = lambda _: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._name = name
        self._deadlines = deadlines
        self._identities_of = identities_of
        self._budget = AssemblyBudget(ASSEMBLING_BYTES_MAX)
        self._streams: set[ServedStream] = set()
        self._draining = False

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of `Exchange`, which reads and writes frames as bytes."""
        return grpc.stream_stream_rpc_method_handler(self._exchange)

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    async def drain(self) -> None:
        """Take no further calls; return when every accepted one is answered."""
        self._draining = True
        streams = list(self._streams)
        for stream in streams:
            stream.drain()
        if streams:
            await asyncio.wait([stream.emptied for stream in streams])

    async def _exchange(self, _: object, context: StreamContext) -> None:
        peer = await self._greet(context)
        # By itself, so that a stream that ends early does not send it twice.
        await context.send_initial_metadata(())
        stream = ServedStream(
            context,
            self._dispatcher,
            self._deadlines,
            self._limits,
            peer,
            self._name,
            self._budget,
            self._identities_of(context),
        )
        self._streams.add(stream)
        if self._draining:
            stream.drain()
        try:
            await stream.serve()
        except ProtocolError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except FrameTooLargeError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            self._streams.discard(stream)
            stream.close()

    async def _greet(self, context: StreamContext) -> Limits:
        """Read the peer's hello; ends the stream when there is none."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_SECONDS):
                data = await context.read()
            if not isinstance(data, bytes):
                raise ProtocolError("the stream ended before a hello")
            first = ExchangeRequest.FromString(data)
            if not first.HasField("hello") or first.calls or first.parts:
                raise ProtocolError("the first frame holds a hello and nothing else")
            return limits_of(first.hello)
        except (DecodeError, ProtocolError, TimeoutError) as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error) or "no hello")
