"""uvicorn inside the process of the service, with bounds that it does not have by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.edge.config import EdgeSettings
from services.edge.rest.door import Receive, Scope, Send

_log = logging.getLogger(__name__)
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Requests that were sent before their sender could know that this process stops: as long as bytes
# travel, with one retransmission. Whoever sends more often than that is told to connect anew.
_LINGER_SECONDS = 1.0

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"content-type: application/problem+json\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n\r\n%s"
)
_BAD_REQUEST_BODY = (
    b'{"type":"urn:paymesh:error:MESSAGE_MALFORMED","title":"Bad Request","status":400,'
    b'"detail":"These bytes are no HTTP request.","reason":"MESSAGE_MALFORMED",'
    b'"outcome":"NOT_EXECUTED","retry":"NEVER"}'
)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose request heads are bounded in bytes and in time, and which leaves politely."""

    head_bytes_max: ClassVar[int] = 32_768
    head_seconds: ClassVar[float] = 10.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; give up on a head that is too long."""
        was_in_head = self._in_head
        super().data_received(data)
        if not self._in_head:
            return
        # Of the piece that a head begins in, the size says nothing: a body may end in it.
        if was_in_head:
            self._head_bytes += len(data)
        if self._head_bytes > self.head_bytes_max:
            self.send_400_response("The head is too long.")
        elif self._head_timer is None and not self.transport.is_closing():
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._in_head = False
        self._stop_timer()
        if sum(len(name) + len(value) for name, value in self.headers) > self.head_bytes_max:
            raise ValueError("the head is too long")  # the parser makes a 400 of it
        super().on_headers_complete()
        if self._is_leaving:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Answer what is under way or on its way, each with the word to connect anew, then close.

        A connection that is closed without a word may have a request in it already, whose sender
        would not know what became of it.
        """
        self._is_leaving = True
        if self._is_idle():
            self.loop.call_later(_LINGER_SECONDS, self._leave)
        else:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _leave(self) -> None:
        # A head that has begun is given its time, and an answer.
        if self._is_idle() and not self._in_head:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, as a problem, and hang up.

        Never in the place of an answer that is still to come: a request that was whole is answered
        first, and what follows it is dropped with the connection.
        """
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                self.pipeline.clear()
                return
            # The body itself is broken: whoever reads it is told that no more will come.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_BAD_REQUEST % (len(_BAD_REQUEST_BODY), _BAD_REQUEST_BODY))
        self.transport.close()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


class HttpServer:
    """An HTTP server that runs until it is cancelled, and then finishes what it has begun."""

    def __init__(self, app: App, settings: EdgeSettings) -> None:
        self._socket = _listen(settings)
        self.port: int = self._socket.getsockname()[1]
        protocol = type(
            "Protocol",
            (BoundedProtocol,),
            {
                "head_bytes_max": settings.head_bytes_max,
                "head_seconds": settings.head_seconds,
            },
        )
        self._server = _Server(
            uvicorn.Config(
                _only_http(app),
                http=protocol,
                ws="none",
                lifespan="off",
                loop="none",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.drain_seconds,
                backlog=2048,
            )
        )

    async def run(self) -> None:
        """Serve until cancelled; then take nothing new and finish what is under way."""
        serving = asyncio.create_task(
            self._server.serve(sockets=[self._socket]), name="edge http server"
        )
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise

    async def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def _only_http(app: App) -> App:
    async def run(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return run


def _listen(settings: EdgeSettings) -> socket.socket:
    """Take the port now, so that a service whose port is taken does not start."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.http_port_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((settings.http_host, settings.http_port))
    except OSError:
        listening.close()
        raise
    return listening
