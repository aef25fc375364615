"""The caller's end of one stream: numbers calls, fills frames, settles answers.

A frame holds whatever calls are ready when the stream can take one; there is no timer. While one
frame is being written the next gathers, so that a lonely call leaves at once and a crowd shares
the cost. Large messages are cut into parts, one part of one message in each frame, in turn: small
calls never wait for more than a frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from paymesh.mesh import errors
from paymesh.mesh.frames import (
    CALL_HEAD_BYTES,
    EXCHANGE_METHOD,
    METADATA_BYTES_MAX,
    Limits,
    Metadata,
    MetadataWriter,
    ProtocolError,
    limits_of,
    read_metadata,
)
from paymesh.mesh.stream_call import DONE, SENDING, WAITING, WRITTEN, StreamCall
from paymesh.mesh.v1 import Answer, Drain, ExchangeRequest, ExchangeResponse, Part

AnyCall = StreamCall[Any, Any]

BROKEN: Final = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError, ProtocolError)
"""What reading and writing raise when a stream has ended."""


class Owner(Protocol):
    """What an exchange needs from its channel."""

    target: str
    waiting: deque[AnyCall]
    limits: Limits

    def monotonic(self) -> float:
        """Return the time that deadlines are measured in."""
        ...

    def retire(self, exchange: Exchange) -> None:
        """Take no further calls through this stream; it drains or is broken."""
        ...


class Exchange:
    """One open stream to a peer."""

    def __init__(
        self,
        owner: Owner,
        channel: grpc.aio.Channel,
        rpc: grpc.aio.StreamStreamCall[ExchangeRequest, ExchangeResponse],
        peer: Limits,
    ) -> None:
        self._owner = owner
        self._channel = channel
        self._rpc = rpc
        self._peer = peer
        self._in_flight: dict[int, AnyCall] = {}
        self._cancelled: list[int] = []
        self._cut: deque[tuple[AnyCall, int]] = deque()
        self._methods: dict[str, int] = {}
        self._metadata = MetadataWriter()
        self._calls_begun = 0
        self._retired = False
        self._idle: asyncio.Future[None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.ensure_future(self._read())
        self._writer = asyncio.ensure_future(self._write())

    @classmethod
    async def open(
        cls, owner: Owner, channel: grpc.aio.Channel, service: str, metadata: Metadata
    ) -> Exchange:
        """Open a stream on a connected or connecting channel and exchange hellos.

        Raises one of `BROKEN` when the peer is away or speaks another protocol.
        """
        rpc: grpc.aio.StreamStreamCall[ExchangeRequest, ExchangeResponse] = channel.stream_stream(
            EXCHANGE_METHOD,
            request_serializer=ExchangeRequest.SerializeToString,
            response_deserializer=ExchangeResponse.FromString,
        )(metadata=metadata)  # type: ignore[call-arg]
        try:
            await rpc.write(ExchangeRequest(hello=owner.limits.hello(service)))
            first = await rpc.read()
            if not isinstance(first, ExchangeResponse):
                raise ProtocolError("the peer closed the stream without a hello")
            peer = limits_of(first.hello)
        except BaseException:
            rpc.cancel()
            raise
        return cls(owner, channel, rpc, peer)

    @property
    def in_flight(self) -> int:
        """Calls that have left and are not answered."""
        return len(self._in_flight)

    def wake(self) -> None:
        """Write a frame soon: calls wait."""
        idle = self._idle
        if idle is not None:
            self._idle = None
            if not idle.done():
                idle.set_result(None)

    def abandon(self, call: AnyCall) -> None:
        """Tell the peer that nobody waits for this call any more."""
        if self._in_flight.pop(call.call_id, None) is not None:
            self._cancelled.append(call.call_id)
            self.wake()

    def stop(self) -> None:
        """Take no further calls; the stream ends when its last answer has come."""
        self._retired = True
        self.wake()
        if not self._in_flight:
            self._finish()

    async def _write(self) -> None:
        owner = self._owner
        try:
            while True:
                ready = self._cancelled or self._cut or (owner.waiting and not self._is_full())
                if not ready or (self._retired and not self._cancelled and not self._cut):
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                    continue
                await self._rpc.write(self._fill())
        except BROKEN:
            # The reader learns why, and ends the stream.
            return
        except Exception:
            # A frame that cannot be built is our own mistake: no call may wait for ever for it.
            self._finish()
            raise

    def _is_full(self) -> bool:
        return self._retired or len(self._in_flight) >= self._peer.calls_max

    def _fill(self) -> ExchangeRequest:
        """Take what is ready into one frame."""
        frame = ExchangeRequest()
        used = 0
        if self._cancelled:
            frame.cancelled_call_ids.extend(self._cancelled)
            self._cancelled.clear()
        if self._cut:
            used = self._add_part(frame)
        waiting = self._owner.waiting
        if waiting and not self._retired:
            self._add_calls(frame, waiting, used)
        return frame

    def _add_calls(self, frame: ExchangeRequest, waiting: deque[AnyCall], used: int) -> None:
        peer = self._peer
        full, inline, message_max = peer.fill_bytes, peer.inline_bytes_max, peer.message_bytes_max
        calls_max, in_flight, methods = peer.calls_max, self._in_flight, self._methods
        add, find_metadata = frame.calls.add, self._metadata.find
        now = self._owner.monotonic()
        frame.sent_at_microseconds = int(now * 1_000_000)
        while waiting and used < full and len(in_flight) < calls_max:
            call = waiting.popleft()
            if call.progress is DONE:
                continue
            payload = call.payload
            size = len(payload)
            indexes, new, metadata_size = find_metadata(call.metadata)
            if size > message_max or metadata_size > METADATA_BYTES_MAX:
                limit = message_max if size > message_max else METADATA_BYTES_MAX
                call.fail(errors.message_too_large(limit, errors.NOT_EXECUTED))
                continue
            self._calls_begun = call_id = self._calls_begun + 1
            deadline_at = call.deadline_at
            path = call.method.path
            index = methods.get(path)
            entry = add(
                call_id=call_id,
                method="" if index is not None else path,
                method_index=index or self._name(path),
                timeout_microseconds=(
                    0 if deadline_at is None else max(1, int((deadline_at - now) * 1_000_000))
                ),
                payload=payload if size <= inline else b"",
                metadata_indexes=indexes,
            )
            used += CALL_HEAD_BYTES + metadata_size
            if new:
                self._metadata.add(entry, new)
            if size <= inline:
                used += size
                call.progress = WRITTEN
            else:
                entry.payload_bytes = size
                call.progress = SENDING
                self._cut.append((call, 0))
            call.call_id = call_id
            call.exchange = self
            in_flight[call_id] = call

    def _name(self, path: str) -> int:
        """Give a method its short name on this stream."""
        index = self._methods[path] = len(self._methods) + 1
        return index

    def _add_part(self, frame: ExchangeRequest) -> int:
        """Add the next part of the message whose turn it is; return its size."""
        while self._cut:
            call, offset = self._cut.popleft()
            if call.call_id not in self._in_flight or call.exchange is not self:
                continue
            part = call.payload[offset : offset + self._peer.part_bytes]
            frame.parts.add(call_id=call.call_id, payload=part)
            offset += len(part)
            if offset < len(call.payload):
                self._cut.append((call, offset))
            else:
                call.progress = WRITTEN
            return len(part) + CALL_HEAD_BYTES
        return 0

    async def _read(self) -> None:
        read = self._rpc.read
        try:
            while True:
                frame = await read()
                if not isinstance(frame, ExchangeResponse):
                    break
                for answer in frame.answers:
                    self._settle(answer)
                for part in frame.parts:
                    self._append(part)
                if frame.HasField("drain"):
                    self._drain(frame.drain)
                if self._retired and not self._in_flight:
                    break
                if self._idle is not None and self._owner.waiting:
                    self.wake()
        except BROKEN:
            pass
        finally:
            self._finish()

    def _settle(self, answer: Answer) -> None:
        call = self._in_flight.get(answer.call_id)
        if call is None:
            # Cancelled or late: the caller has gone.
            return
        if answer.payload_bytes:
            self._begin_parts(call, answer)
            return
        del self._in_flight[answer.call_id]
        code = answer.code
        if code:
            call.fail(_error_of(answer))
            return
        if answer.trailing_metadata:
            call.trailing = read_metadata(answer.trailing_metadata)
        if answer.initial_metadata:
            call.initial = read_metadata(answer.initial_metadata)
        self._deliver(call, answer.payload)

    def _deliver(self, call: AnyCall, payload: bytes) -> None:
        deserialize = call.method.deserializer
        if deserialize is None:
            call.settle(payload)
            return
        try:
            response = deserialize(payload)
        except DecodeError:
            call.fail(errors.malformed(errors.EXECUTED))
            return
        call.settle(response)

    def _begin_parts(self, call: AnyCall, answer: Answer) -> None:
        limit = self._owner.limits.message_bytes_max
        if answer.payload_bytes > limit:
            raise ProtocolError(f"an answer of more than {limit} bytes was announced")
        call.trailing = read_metadata(answer.trailing_metadata)
        call.initial = read_metadata(answer.initial_metadata)
        call.parts = [answer.payload] if answer.payload else []
        call.response_bytes = answer.payload_bytes

    def _append(self, part: Part) -> None:
        call = self._in_flight.get(part.call_id)
        if call is None:
            return
        if call.parts is None or not part.payload:
            raise ProtocolError("a part without a beginning")
        call.parts.append(part.payload)
        have = sum(map(len, call.parts))
        if have > call.response_bytes:
            raise ProtocolError("more parts than were announced")
        if have == call.response_bytes:
            del self._in_flight[part.call_id]
            self._deliver(call, b"".join(call.parts))

    def _drain(self, drain: Drain) -> None:
        """Give back the calls that the peer did not begin; the others are still answered."""
        self._retired = True
        self._requeue(lambda call: call.call_id > drain.last_call_id)
        self._owner.retire(self)

    def _requeue(self, was_not_begun: Callable[[AnyCall], bool]) -> None:
        back = [call for call in self._in_flight.values() if was_not_begun(call)]
        for call in sorted(back, key=lambda one: -one.call_id):
            del self._in_flight[call.call_id]
            call.progress = WAITING
            call.waiting_since = self._owner.monotonic()
            call.exchange = None
            call.parts = None
            call.call_id = 0
            self._owner.waiting.appendleft(call)

    def _finish(self) -> None:
        """End the stream: what was written fails as UNKNOWN, what was not is sent elsewhere."""
        if self.ended.done():
            return
        self._retired = True
        self._requeue(lambda call: call.progress is SENDING)
        lost = list(self._in_flight.values())
        self._in_flight.clear()
        for call in lost:
            call.fail(errors.unavailable(self._owner.target, errors.UNKNOWN))
        self._writer.cancel()
        self._rpc.cancel()
        self.ended.set_result(None)
        self._owner.retire(self)

    async def close(self) -> None:
        """End the stream now and give its connection back."""
        self._finish()
        self._reader.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)
        await self._channel.close(None)


def _error_of(answer: Answer) -> grpc.aio.AioRpcError:
    trailing = list(read_metadata(answer.trailing_metadata))
    if answer.status_details:
        trailing.append((errors.DETAILS_KEY, answer.status_details))
    return grpc.aio.AioRpcError(
        errors.CODES.get(answer.code, grpc.StatusCode.UNKNOWN),
        grpc.aio.Metadata(*read_metadata(answer.initial_metadata)),
        grpc.aio.Metadata(*trailing),
        answer.message,
        None,
    )
