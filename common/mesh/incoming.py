"""A call as servicers and middleware see it, the same whichever way it came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from paymesh.mesh import errors as wire

from common.clock import Clock
from common.context import CallContext
from common.errors import MessageMalformedError
from common.mesh.status import AbortedCallError, CallStatus

Behaviour = Callable[[Any, "IncomingCall"], Awaitable[Any]]
"""A servicer's method."""

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One unary method that a process serves."""

    path: str
    """`/package.Service/Method`."""
    service: str
    """`package.Service`."""
    name: str
    behaviour: Behaviour
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    descriptor: MethodDescriptor | None
    changes_nothing: bool
    """The contract says `idempotency_level = NO_SIDE_EFFECTS`."""


class IncomingMiddleware:
    """One concern of every call that is served; a class overrides what it has a use for."""

    def before(self, call: IncomingCall) -> None:
        """Look at a call before its servicer does; raise a PaymeshError to refuse it."""

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Look at a call that has ended; called only when `before` had let it pass."""


class IncomingCall(grpc.aio.ServicerContext[Any, Any]):
    """The circumstances of one call being served, and its answer.

    It is the `context` that servicers get, so that one object serves gRPC's interface, the
    middleware and the way that the call came.
    """

    # Defaults of the class, so that a call sets only what it has: one is made for every hop.

    context: CallContext | None = None
    """What servicers find by `common.context.current`."""
    status: CallStatus | None = None
    """The answer of a call that failed."""
    response: Any = None
    """The response message of a call that succeeded."""
    answer: bytes = b""
    """The same, serialised, on the ways that need it."""
    initial: Metadata = ()
    trailing: Metadata = ()
    call_id: int = 0
    """Number on its stream."""
    bucket: set[Any] | None = None
    """Where its deadline is watched, on the ways that watch deadlines themselves."""
    task: asyncio.Task[None] | None = None
    """The task that serves it, on these ways."""
    expired: bool = False
    """Its time was over before it had an answer."""
    span: Any = None
    identities: frozenset[str] | None = None
    """Names in the peer's certificate; None without mTLS."""
    peer_address: str = ""
    _request: Any = None
    _payload: bytes | None = None
    _headers: dict[str, str | bytes] | None = None
    _code: grpc.StatusCode | None = None
    _details: str = ""

    def __init__(
        self,
        method: Method,
        clock: Clock,
        now: float,
        metadata: Metadata,
        deadline_at: float | None,
        caller: str | None = None,
    ) -> None:
        self.method = method
        self.started_at = now
        """Instant of the clock's `monotonic` when the call came."""
        self.metadata = metadata
        self.deadline_at = deadline_at
        """Instant of the clock's `monotonic` when the caller stops waiting."""
        self.work_until = deadline_at
        """The deadline for what this call causes, a little before its own."""
        self.caller = caller
        """Proven name of the calling service: known at once on the local way, found by the
        context middleware on the others; empty for a caller outside the mesh."""
        self._clock = clock

    def carry(self, *, request: Message | None = None, payload: bytes | None = None) -> None:
        """Give the call its request, as a message or as bytes."""
        self._request = request
        self._payload = payload

    @property
    def request(self) -> Any:
        """The request message; raises MessageMalformedError when the bytes are none."""
        if self._request is None:
            try:
                self._request = self.method.parse(self._payload or b"")
            except DecodeError:
                raise MessageMalformedError from None
            self._payload = None
        return self._request

    @property
    def headers(self) -> dict[str, str | bytes]:
        """The metadata by key; of repeated keys, the last."""
        if self._headers is None:
            self._headers = dict(self.metadata)
        return self._headers

    def finish(self) -> None:
        """Take what the servicer said by `set_code` as its answer."""
        if self._code is not None and self._code is not grpc.StatusCode.OK:
            self.status = CallStatus(self._code, self._details)

    # The interface of a gRPC servicer's context.

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        """End the call with a status; raises."""
        found = b""
        rest: list[tuple[str, str | bytes]] = []
        for key, value in tuple(trailing_metadata):
            if key == wire.DETAILS_KEY and isinstance(value, bytes):
                found = value
            else:
                rest.append((key, value))
        if rest:
            self.trailing = tuple(rest)
        raise AbortedCallError(CallStatus(code, details, found))

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a rich status; raises."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def read(self) -> NoReturn:
        """Refuse: unary calls have their request as an argument."""
        raise grpc.aio.UsageError("a unary call has one request")

    async def write(self, message: Any) -> NoReturn:
        """Refuse: unary calls return their response."""
        raise grpc.aio.UsageError("a unary call has one response")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send metadata with the answer, as its initial metadata."""
        self.initial = tuple(initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Send metadata with the answer, as its trailing metadata."""
        self.trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata as pairs."""
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Answer with this status instead of the response."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Answer with this message, when `set_code` sets a code."""
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Ignore: compression is the connection's."""

    def disable_next_message_compression(self) -> None:
        """Ignore: compression is the connection's."""

    def peer(self) -> str:
        """Return the peer's address."""
        return self.peer_address

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the names in the peer's certificate."""
        if self.identities is None:
            return None
        return [name.encode() for name in self.identities]

    def peer_identity_key(self) -> str | None:
        """Return what kind of names `peer_identities` are."""
        return None if self.identities is None else "x509_subject_alternative_name"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the peer's identities by kind."""
        key = self.peer_identity_key()
        return {} if key is None else {key: self.peer_identities() or ()}

    def time_remaining(self) -> Any:
        """Return the seconds left; None for a call without a deadline."""
        if self.deadline_at is None:
            return None
        return max(0.0, self.deadline_at - self._clock.monotonic())

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata set so far."""
        return self.trailing

    def code(self) -> Any:
        """Return the status code set so far."""
        return self._code

    def details(self) -> str:
        """Return the status message set so far."""
        return self._details

    def add_done_callback(self, callback: Any) -> NoReturn:
        """Refuse: work after a call belongs to a job, not to a callback."""
        raise grpc.aio.UsageError("unary calls of the mesh have no done callbacks")

    def cancelled(self) -> bool:
        """Return False: a cancelled call's servicer is cancelled with it."""
        return False

    def done(self) -> bool:
        """Say whether the call has an answer."""
        return self.status is not None or self.response is not None


def expire(call: IncomingCall) -> None:
    """Stop a call whose deadline has passed: the task that serves it is cancelled."""
    call.expired = True
    call.bucket = None
    if call.task is not None:
        # Not at once: a task that is cancelled before its first step never cleans up.
        call.task.get_loop().call_soon(call.task.cancel)
