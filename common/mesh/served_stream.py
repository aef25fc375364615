"""One stream being served: calls come in frames, each gets a task, answers leave in frames."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from paymesh.mesh.deadlines import Deadlines
from paymesh.mesh.frames import (
    CALL_HEAD_BYTES,
    METHOD_BYTES_MAX,
    Limits,
    MetadataReader,
    ProtocolError,
    write_metadata,
)
from paymesh.mesh.v1 import Call, Drain, ExchangeRequest, ExchangeResponse, Part

from common.errors import (
    DeadlineExceededError,
    MessageTooLargeError,
    MethodUnknownError,
    Outcome,
    OverloadedError,
)
from common.mesh.dispatch import Dispatcher
from common.mesh.incoming import IncomingCall, Metadata
from common.mesh.lateness import Lateness
from common.mesh.status import CallStatus, status_of

METHODS_MAX: Final = 4_096
"""Most method names that one stream may give short names to."""

FRAMES_AHEAD_MAX: Final = 64
"""Frames and cut answers that may wait for a slow reader before no more calls are read."""


LAST_FRAME_SECONDS: Final = 1.0
"""How long a peer that broke the rules may take to read the frame that is under way."""


class FrameTooLargeError(Exception):
    """A frame is larger than this side said it reads."""


class AssemblyBudget:
    """Bounds the bytes of requests that have begun to arrive in parts, over all streams."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; say whether there was room."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._left += size


class _Assembly:
    """A request of which not all parts have come."""

    __slots__ = ("call", "have", "metadata", "parts", "sent_at", "size")

    def __init__(self, call: Call, metadata: Metadata, sent_at: float) -> None:
        self.call = call
        self.metadata = metadata
        self.sent_at = sent_at
        self.size = call.payload_bytes
        self.parts = [call.payload] if call.payload else []
        self.have = len(call.payload)


class ServedStream:
    """The state of one stream, from its hello to its end."""

    def __init__(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        dispatcher: Dispatcher,
        deadlines: Deadlines[IncomingCall],
        limits: Limits,
        peer: Limits,
        name: str,
        budget: AssemblyBudget,
        identities: frozenset[str] | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._dispatcher = dispatcher
        self._deadlines = deadlines
        self._limits = limits
        self._peer = peer
        self._budget = budget
        self._identities = identities
        self._peer_address = context.peer()
        self._methods: dict[int, str] = {}
        self._metadata = MetadataReader()
        self._lateness = Lateness()
        self._last_call_id = 0
        self._accepted_last: int | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._assemblies: dict[int, _Assembly] = {}
        self._frame = ExchangeResponse(hello=limits.hello(name))
        self._used = 1
        self._frame_number = 0
        self._full: deque[tuple[int, ExchangeResponse]] = deque()
        # Answers sent in parts: call, payload, offset, number of the frame that begins it.
        self._cut: deque[tuple[int, bytes, int, int]] = deque()
        # Room is kept for one part beside the answers of a frame.
        self._fill_bytes = max(CALL_HEAD_BYTES, peer.fill_bytes - peer.part_bytes)
        self._idle: asyncio.Future[None] | None = None
        self._is_closing = False
        self._room = asyncio.Event()
        self._room.set()
        self.emptied: asyncio.Future[None] = self._loop.create_future()
        """Done when the stream has drained, or has ended."""

    async def serve(self) -> None:
        """Serve until the peer goes or the stream has drained.

        Raises ProtocolError or FrameTooLargeError when the peer breaks the rules.
        """
        writer = asyncio.ensure_future(self._write())
        reader = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            # A frame under way is let out: gRPC refuses the status of a stream that is cut short
            # in the middle of a write.
            self._is_closing = True
            self._wake()
            await asyncio.wait([writer], timeout=LAST_FRAME_SECONDS)
            if reader.done():
                reader.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    def close(self) -> None:
        """Stop everything that the stream had begun: nobody is left to answer."""
        for task in self._tasks.values():
            task.cancel()
        for assembly in self._assemblies.values():
            self._budget.give_back(assembly.size)
        self._assemblies.clear()
        if not self.emptied.done():
            self.emptied.set_result(None)

    def drain(self) -> None:
        """Take no calls after the last one that has come."""
        if self._accepted_last is not None:
            return
        self._accepted_last = self._last_call_id
        self._frame.drain.CopyFrom(Drain(last_call_id=self._last_call_id))
        self._used += 1
        self._wake()

    # Reading.

    async def _read(self) -> None:
        read = self._context.read
        frame_bytes_max = self._limits.frame_bytes_max
        while True:
            if not self._room.is_set():
                await self._room.wait()
            data = await read()
            if not isinstance(data, bytes):
                # gRPC's mark for the end of the stream.
                return
            if len(data) > frame_bytes_max:
                raise FrameTooLargeError(f"a frame is larger than {frame_bytes_max} bytes")
            try:
                frame = ExchangeRequest.FromString(data)
            except DecodeError:
                raise ProtocolError("the bytes are no frame") from None
            if frame.HasField("hello"):
                raise ProtocolError("a second hello")
            now = sent_at = self._dispatcher.clock.monotonic()
            if frame.sent_at_microseconds:
                sent_at -= self._lateness.measure(frame.sent_at_microseconds / 1_000_000, now)
            for call in frame.calls:
                self._begin(call, now, sent_at)
            for part in frame.parts:
                self._append(part, now)
            for call_id in frame.cancelled_call_ids:
                self._cancel(call_id)

    def _begin(self, call: Call, now: float, sent_at: float) -> None:
        call_id = call.call_id
        if call_id <= self._last_call_id:
            raise ProtocolError("calls are numbered upwards")
        self._last_call_id = call_id
        path = self._path_of(call)
        # Always read: entries that the peer says to keep count for later calls too.
        metadata = self._metadata.read(call)
        if self._accepted_last is not None:
            # Draining: the peer was told, and sends this call elsewhere.
            return
        limits = self._limits
        payload, announced = call.payload, call.payload_bytes
        size = announced or len(payload)
        if len(self._tasks) + len(self._assemblies) >= limits.calls_max:
            self._refuse(call_id, status_of(OverloadedError(limit=limits.calls_max)))
        elif size > limits.message_bytes_max:
            self._refuse(
                call_id, status_of(MessageTooLargeError(limit_bytes=limits.message_bytes_max))
            )
        elif path not in self._dispatcher.methods:
            self._refuse(call_id, status_of(MethodUnknownError(method=path)))
        elif announced:
            if len(payload) >= announced:
                raise ProtocolError("a request in parts that is all there")
            if self._budget.take(size):
                self._assemblies[call_id] = _Assembly(call, metadata, sent_at)
            else:
                self._refuse(call_id, status_of(OverloadedError(limit="unfinished requests")))
        else:
            self._start(path, call, payload, metadata, now, sent_at)

    def _path_of(self, call: Call) -> str:
        index = call.method_index
        path = call.method
        if not path:
            known = self._methods.get(index)
            if known is None:
                raise ProtocolError("a method without a name")
            return known
        if index:
            if index in self._methods or index > METHODS_MAX:
                raise ProtocolError("a short name that is taken or too large")
            if len(path) > METHOD_BYTES_MAX:
                raise ProtocolError("a method name that is too long")
            self._methods[index] = path
        return path

    def _append(self, part: Part, now: float) -> None:
        assembly = self._assemblies.get(part.call_id)
        if assembly is None:
            if part.call_id > self._last_call_id:
                raise ProtocolError("a part of no call")
            return
        payload = part.payload
        assembly.parts.append(payload)
        assembly.have += len(payload)
        if not payload or assembly.have > assembly.size:
            raise ProtocolError("parts that do not add up")
        if assembly.have == assembly.size:
            del self._assemblies[part.call_id]
            self._budget.give_back(assembly.size)
            call = assembly.call
            path = call.method or self._methods[call.method_index]
            payload = b"".join(assembly.parts)
            self._start(path, call, payload, assembly.metadata, now, assembly.sent_at)

    def _cancel(self, call_id: int) -> None:
        assembly = self._assemblies.pop(call_id, None)
        if assembly is not None:
            self._budget.give_back(assembly.size)
            self._wake()
            return
        task = self._tasks.get(call_id)
        if task is not None:
            # Not at once: a task that is cancelled before its first step never cleans up.
            self._loop.call_soon(task.cancel)

    # Serving.

    def _start(
        self,
        path: str,
        frame_call: Call,
        payload: bytes,
        metadata: Metadata,
        now: float,
        sent_at: float,
    ) -> None:
        """Serve a call that is all there; `sent_at` is when it was sent, by our own clock."""
        dispatcher = self._dispatcher
        timeout = frame_call.timeout_microseconds
        deadline_at = sent_at + timeout / 1_000_000 if timeout else None
        if deadline_at is not None and deadline_at <= now:
            # It was read late, and nobody waits for it any more.
            late = DeadlineExceededError(outcome=Outcome.NOT_EXECUTED)
            self._refuse(frame_call.call_id, status_of(late))
            return
        call = IncomingCall(dispatcher.methods[path], dispatcher.clock, now, metadata, deadline_at)
        call.carry(payload=payload)
        call.identities = self._identities
        call.peer_address = self._peer_address
        call.call_id = call_id = frame_call.call_id
        call.task = self._tasks[call_id] = self._loop.create_task(
            dispatcher.run(call, encode=True, ended=self._ended)
        )
        if deadline_at is not None:
            call.bucket = self._deadlines.add(call, deadline_at)

    def _ended(self, call: IncomingCall) -> None:
        call_id = call.call_id
        del self._tasks[call_id]
        if call.bucket is not None:
            call.bucket.discard(call)
        if call.status is None:
            self._answer(call_id, call)
        else:
            self._refuse(call_id, call.status, call.initial, call.trailing)

    def _answer(self, call_id: int, call: IncomingCall) -> None:
        payload = call.answer
        size = len(payload)
        if size <= self._peer.inline_bytes_max:
            entry = self._frame.answers.add(call_id=call_id, payload=payload)
            self._used += CALL_HEAD_BYTES + size
        elif size > self._peer.message_bytes_max:
            error = MessageTooLargeError(
                outcome=Outcome.EXECUTED, limit_bytes=self._peer.message_bytes_max
            )
            self._refuse(call_id, status_of(error), call.initial, call.trailing)
            return
        else:
            entry = self._frame.answers.add(call_id=call_id, payload_bytes=size)
            self._cut.append((call_id, payload, 0, self._frame_number))
            self._used += CALL_HEAD_BYTES
        if call.trailing:
            write_metadata(entry.trailing_metadata, call.trailing)
            self._used += 64 * len(call.trailing)
        if call.initial:
            write_metadata(entry.initial_metadata, call.initial)
            self._used += 64 * len(call.initial)
        self._turn_frame()

    def _refuse(
        self, call_id: int, status: CallStatus, initial: Metadata = (), trailing: Metadata = ()
    ) -> None:
        entry = self._frame.answers.add(
            call_id=call_id,
            code=status.code.value[0],
            message=status.message,
            status_details=status.details,
        )
        self._used += CALL_HEAD_BYTES + len(status.message) + len(status.details)
        write_metadata(entry.trailing_metadata, trailing)
        write_metadata(entry.initial_metadata, initial)
        self._turn_frame()

    def _turn_frame(self) -> None:
        if self._used >= self._fill_bytes:
            self._full.append(self._next_frame())
            if len(self._full) + len(self._cut) > FRAMES_AHEAD_MAX:
                self._room.clear()
        self._wake()

    # Writing.

    def _next_frame(self) -> tuple[int, ExchangeResponse]:
        """Return the frame that was being filled, with its number, and begin another."""
        filled = (self._frame_number, self._frame)
        self._frame_number += 1
        self._frame = ExchangeResponse()
        self._used = 0
        return filled

    def _wake(self) -> None:
        idle = self._idle
        if idle is not None:
            self._idle = None
            if not idle.done():
                idle.set_result(None)

    async def _write(self) -> None:
        """Write answers; returns when the stream has drained."""
        write = self._context.write
        while not self._is_closing:
            if not self._used and not self._full and not self._cut:
                if self._check_emptied():
                    return
                self._idle = self._loop.create_future()
                await self._idle
                continue
            number, frame = self._full.popleft() if self._full else self._next_frame()
            if self._cut:
                self._add_part(frame, number)
            if not self._room.is_set() and len(self._full) + len(self._cut) <= FRAMES_AHEAD_MAX:
                self._room.set()
            await write(frame.SerializeToString())

    def _add_part(self, frame: ExchangeResponse, number: int) -> None:
        """Add the next part of the answer whose turn it is, once its beginning has left."""
        call_id, payload, offset, begun_in = self._cut.popleft()
        if begun_in <= number:
            part = payload[offset : offset + self._peer.part_bytes]
            frame.parts.add(call_id=call_id, payload=part)
            offset += len(part)
        if offset < len(payload):
            self._cut.append((call_id, payload, offset, begun_in))

    def _check_emptied(self) -> bool:
        """Say whether the stream has drained; its end is told to whoever waits for it."""
        if self._accepted_last is None or self._tasks or self._assemblies:
            return False
        if self._used or self._full or self._cut:
            return False
        if not self.emptied.done():
            self.emptied.set_result(None)
        return True
