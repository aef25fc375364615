"""What every HTTP answer of the edge has in common: bounds, a number, and problems for errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from common.clock import Clock
from common.errors import FieldInvalidError, InternalError, OverloadedError, PaymeshError
from common.ids import IdFactory
from services.edge.errors import BodyLateError, BodyTooLargeError
from services.edge.rest import problem
from services.edge.rest.journal import Journal
from services.edge.rest.problem import Problem
from services.edge.rest.refusals import Refusals

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REQUEST_ID_HEADER: Final = "paymesh-request-id"
BIZ_TRACE_ID_HEADER: Final = "paymesh-biz-trace-id"
REPLAYED_HEADER: Final = "idempotent-replayed"

# Headers that decide what a request means: two of them are an attempt to say two things.
_SINGLE: Final = frozenset(
    {
        "authorization",
        "content-digest",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "signature",
        "signature-input",
        "transfer-encoding",
    }
)
# More digits than any body that is read; Python would refuse to convert thousands of them.
_LENGTH_DIGITS_MAX: Final = 18
_log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client hung up before its request was complete; nobody waits for an answer."""


@dataclass(slots=True)
class Visit:
    """One request at the door."""

    request_id: str
    deadline_at: float
    """Instant of the monotonic clock when its answer is worth nothing any more."""
    began_at: datetime
    route: str = ""
    """HTTP method and route, as refusals record it."""
    merchant_id: str = ""
    """Set once the signature has proven it."""
    reached: bool = False
    """Whether a service was called: its refusals are its own affair."""
    is_journaled: bool = False
    """Whether the journal takes it down: it may have changed something."""
    replayed: bool = False
    """Whether its answer is that of an equal request before it."""
    mode: str = ""
    key_id: str = ""
    channel: str = ""
    """The channel that called back; empty for merchants."""
    callback_body: bytes = b""
    """What it sent, of which the journal keeps the digest."""
    idempotency_key: str = ""
    noun_id: str = ""
    """What it made, or what it is about, as soon as that is known."""
    biz_trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class InFlight:
    """Counts requests under way: of all surfaces of the edge together, or of one service."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    def enter(self) -> None:
        """Begin one; raises OverloadedError beyond the limit."""
        if self.count >= self.limit:
            raise OverloadedError(limit=self.limit, retry_after_seconds=1.0)
        self.count += 1

    def leave(self) -> None:
        """End one."""
        self.count -= 1


class Serve(Protocol):
    """A surface of the edge."""

    async def __call__(self, visit: Visit, scope: Scope, receive: Receive) -> Answer:
        """Answer a request; raises PaymeshError, which is sent as a problem."""
        ...


class Door:
    """An ASGI application around a surface: what it raises becomes a problem, never a trace."""

    def __init__(
        self,
        serve: Serve,
        *,
        in_flight: InFlight,
        refusals: Refusals,
        journal: Journal,
        clock: Clock,
        ids: IdFactory,
        request_seconds: float,
    ) -> None:
        self._serve = serve
        self._in_flight = in_flight
        self._refusals = refusals
        self._journal = journal
        self._clock = clock
        self._ids = ids
        self._request_seconds = request_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        visit = Visit(
            self._ids.new("req"),
            self._clock.monotonic() + self._request_seconds,
            self._clock.now(),
            scope["method"],
        )
        try:
            self._in_flight.enter()
        except OverloadedError as error:
            await self._refuse(visit, error, send)
            return
        try:
            answer = await self._serve(visit, scope, receive)
        except PaymeshError as error:
            await self._refuse(visit, error, send)
            return
        except ClientGoneError:
            return
        except Exception:  # noqa: BLE001 - logged, and told as INTERNAL
            _log.exception("request %s failed unexpectedly", visit.request_id)
            await self._refuse(visit, InternalError(), send)
            return
        finally:
            self._in_flight.leave()
        await self._end(visit, answer, "", send)

    async def _end(self, visit: Visit, answer: Answer, reason: str, send: Send) -> None:
        """Send an answer; the journal comes behind it, also when nobody waits for it any more."""
        try:
            await _send(send, visit, answer)
        finally:
            if visit.is_journaled:
                self._journal.add(visit, answer.status, reason)

    async def _refuse(self, visit: Visit, error: PaymeshError, send: Send) -> None:
        told = Problem(error, visit.request_id)
        if not visit.reached:
            self._refusals.add(visit.request_id, visit.route, told.reason, visit.merchant_id)
        headers = told.headers
        if isinstance(error, BodyTooLargeError | BodyLateError):
            # The rest of the body is not read, so nothing can follow it.
            headers["connection"] = "close"
        answer = Answer(told.status, problem.CONTENT_TYPE, told.body, headers)
        await self._end(visit, answer, told.reason, send)


async def _send(send: Send, visit: Visit, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
        (REQUEST_ID_HEADER.encode(), visit.request_id.encode()),
    ]
    for name, value in answer.headers.items():
        headers.append((name.encode(), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers by name in lower case; repeated ones joined, as RFC 9110 has it.

    Raises:
        FieldInvalidError: a header that must stand once stands twice.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1").strip(" \t")
        if name in found:
            if name in _SINGLE:
                raise FieldInvalidError(field=name, rule="must be given once")
            value = f"{found[name]}, {value}"
        found[name] = value
    return found


async def read_body(
    receive: Receive, headers: Mapping[str, str], *, bytes_max: int, seconds: float
) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLargeError: it says that it is, or turns out to be, longer than `bytes_max`.
        BodyLateError: it did not arrive in time.
        ClientGoneError: it never will.
    """
    said = headers.get("content-length", "")
    if said and (
        not said.isascii() or not said.isdigit() or len(said) > 18 or int(said) > bytes_max
    ):
        raise BodyTooLargeError(limit_bytes=bytes_max)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > bytes_max:
            raise BodyTooLargeError(limit_bytes=bytes_max)
        return body
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                if message["type"] != "http.request":
                    raise ClientGoneError
                part = message.get("body", b"")
                size += len(part)
                if size > bytes_max:
                    raise BodyTooLargeError(limit_bytes=bytes_max)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
    except TimeoutError:
        raise BodyLateError from None
