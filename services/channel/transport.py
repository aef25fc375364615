"""How adapters reach outside parties over HTTP, and how we know whether anything was sent.

What a failed call did depends on one fact only: did the request leave us? `Attempt.written` is
set just before the first byte goes out. Before that a failure surely moved no money, whatever its
kind; after it nothing is sure until the other side says so.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import aiohttp

from services.channel.results import (
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelUnavailableError,
)

BODY_BYTES_MAX: Final = 1 << 20
"""No answer of these protocols comes near this; more is no answer of theirs."""

KEEP_ALIVE_SECONDS: Final = 15.0
"""Shorter than what servers use (60 to 75), so that we close an idle connection first. The other
way round, a request now and then meets a closing connection and its outcome is unknown."""

CONNECTIONS_PER_HOST_MAX: Final = 128

_SURELY_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 422})
"""Answers by which an HTTP server refuses a request before acting on it."""


@dataclass(slots=True)
class Attempt:
    """What is known of the requests that one verb has sent."""

    written: bool = False


_attempt: ContextVar[Attempt | None] = ContextVar("paymesh_channel_attempt", default=None)


class attempted:  # noqa: N801 - reads as a verb: `with attempted() as attempt:`
    """Run a block whose requests are noted in one `Attempt`."""

    def __enter__(self) -> Attempt:
        attempt = Attempt()
        self._token = _attempt.set(attempt)
        return attempt

    def __exit__(self, *error: object) -> None:
        _attempt.reset(self._token)


def mark_written() -> None:
    """Note that a request may have left us. Whatever sends, calls this before its first byte."""
    attempt = _attempt.get()
    if attempt is not None:
        attempt.written = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer with status 200."""

    body: bytes


async def _mark_written(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _parameters: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    attempt = context.trace_request_ctx
    if isinstance(attempt, Attempt):
        attempt.written = True
    mark_written()


def open_session() -> aiohttp.ClientSession:
    """Return the one HTTP session of a process; the caller closes it."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_written)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, limit_per_host=CONNECTIONS_PER_HOST_MAX, keepalive_timeout=KEEP_ALIVE_SECONDS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        auto_decompress=True,
    )


class Transport:
    """Posts forms for one channel and sorts what may go wrong into the closed list."""

    def __init__(
        self, session: aiohttp.ClientSession, channel: str, *, timeout_seconds: float = 10.0
    ) -> None:
        self._session = session
        self._channel = channel
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(3.0, timeout_seconds)
        )

    async def post_form(self, url: str, body: bytes) -> Answer:
        """Send a form and return the answer's body.

        Raises ChannelUnavailableError (nothing was sent), ChannelRateLimitedError,
        ChannelInvalidError (refused by HTTP status) or ChannelOutcomeUnknownError.
        """
        attempt = Attempt()
        try:
            return await self._post(url, body, attempt)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            cause = type(error).__name__
            if attempt.written:
                raise ChannelOutcomeUnknownError(channel=self._channel, cause=cause) from None
            raise ChannelUnavailableError(channel=self._channel, cause=cause) from None

    async def _post(self, url: str, body: bytes, attempt: Attempt) -> Answer:
        async with self._session.post(
            url,
            data=body,
            headers={"content-type": "application/x-www-form-urlencoded;charset=utf-8"},
            timeout=self._timeout,
            allow_redirects=False,
            trace_request_ctx=attempt,
        ) as response:
            if response.status == 429:
                raise ChannelRateLimitedError(channel=self._channel, retry_after_seconds=1.0)
            if response.status in _SURELY_REFUSED:
                raise ChannelInvalidError(channel=self._channel, raw_code=f"HTTP {response.status}")
            if response.status != 200:
                raise ChannelOutcomeUnknownError(
                    channel=self._channel, cause=f"HTTP {response.status}"
                )
            content = await response.content.read(BODY_BYTES_MAX + 1)
            while content and len(content) <= BODY_BYTES_MAX and not response.content.at_eof():
                more = await response.content.read(BODY_BYTES_MAX + 1 - len(content))
                content += more
            if len(content) > BODY_BYTES_MAX:
                raise ChannelOutcomeUnknownError(channel=self._channel, cause="answer too large")
            return Answer(content)
