"""How webhooks reach merchants' servers: one POST, no redirects, no private addresses.

The address is judged where the connection is made, on what the name has resolved to: a name that
was harmless when it was registered may point inside by now.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from common.clock import Clock
from services.notify.domain.addresses import is_public_address
from services.notify.domain.deliveries import Answer

_CONNECT_TIMEOUT_SECONDS: Final = 5.0
# Shorter than what servers use, so that we close an idle connection first.
_KEEP_ALIVE_SECONDS: Final = 15.0
# What a server says to a webhook is of no use; so much is read to use the connection again.
_ANSWER_BYTES_MAX: Final = 16 << 10
_HEADER_BYTES_MAX: Final = 8 << 10


class AddressRefusedError(OSError):
    """The name resolves to an address that webhooks may not be sent to."""


class _Connection(SimpleNamespace):
    """What aiohttp tells of one request."""

    is_reused = False


def open_session(
    *, private_allowed: bool, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Return the one HTTP session of a process; the caller closes it.

    `resolver` looks names up; None for the system's way.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # bounded by the sender
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            resolver=resolver,
            socket_factory=None if private_allowed else _open_public_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        auto_decompress=False,
        trust_env=False,
        max_line_size=_HEADER_BYTES_MAX,
        max_field_size=_HEADER_BYTES_MAX,
    )


def _open_public_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, endpoint = address
    if not is_public_address(str(endpoint[0])):
        raise AddressRefusedError(errno.EACCES, "address is not public")
    return socket.socket(family=family, type=kind, proto=protocol)


async def _note_reuse(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    connection = context.trace_request_ctx
    if isinstance(connection, _Connection):
        connection.is_reused = True


class Courier:
    """Carries one webhook to one address and says what came of it.

    Never raises for the other side's faults.
    """

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, *, timeout_seconds: float
    ) -> None:
        self._session = session
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(_CONNECT_TIMEOUT_SECONDS, timeout_seconds)
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once; the time that it took is in the answer."""
        begun_at = self._clock.monotonic()
        status, retry_after, problem = 0, None, ""
        try:
            status, retry_after = await self._post_kept_alive(url, headers, body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            problem = _problem_of(error)
        took_ms = int((self._clock.monotonic() - begun_at) * 1000)
        return Answer(status, problem, retry_after, took_ms)

    async def _post_kept_alive(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, timedelta | None]:
        connection = _Connection()
        try:
            return await self._post(url, headers, body, connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection that the server closed in this moment is nobody's fault; sent twice
            # it has the same id.
            if not connection.is_reused:
                raise
            return await self._post(url, headers, body, _Connection())

    async def _post(
        self, url: str, headers: Mapping[str, str], body: bytes, connection: _Connection
    ) -> tuple[int, timedelta | None]:
        async with self._session.post(
            URL(url, encoded=True),
            data=body,
            headers=headers,
            timeout=self._timeout,
            allow_redirects=False,
            trace_request_ctx=connection,
        ) as response:
            size = 0
            while not response.content.at_eof():
                size += len(await response.content.read(_ANSWER_BYTES_MAX))
                if size > _ANSWER_BYTES_MAX:
                    response.close()
                    break
            text = response.headers.get("retry-after", "")
            return response.status, read_retry_after(text, self._clock.now)


def read_retry_after(text: str, now: Callable[[], datetime]) -> timedelta | None:
    """Return the pause that a `Retry-After` asks for (RFC 9110, 10.2.3); None for none."""
    text = text.strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**7))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(at - now(), timedelta())


def _problem_of(error: Exception) -> str:
    """Return a word for the log of deliveries; says nothing of our own network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefusedError):
            return "address_refused"
        seen = seen.__cause__ or getattr(seen, "os_error", None)
    for kind, word in _PROBLEMS:
        if isinstance(error, kind):
            return word
    return "connection_lost"


_PROBLEMS: Final = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "name_not_found"),
    (aiohttp.ClientSSLError, "tls_failed"),
    (aiohttp.ClientConnectorError, "not_connected"),
    (aiohttp.InvalidURL, "url_invalid"),
    (aiohttp.ClientPayloadError, "answer_broken"),
    (aiohttp.ClientResponseError, "answer_broken"),
)
