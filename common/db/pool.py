"""One pool of connections per service and schema, with the settings that every session needs.

Settings are given when a session starts and never changed on a pooled connection, so that giving a
connection back costs no round trip: whoever needs `SET`, `LISTEN` or a session's advisory lock
opens a connection of its own (`connect`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from common.db.types import AsyncpgPool, Connection

# A statement of a service answers in milliseconds; one that takes this long holds locks that
# others wait for, and its caller has gone.
STATEMENT_TIMEOUT_SECONDS: Final = 10.0
# The server gives a statement up by itself. One that it does not even give up has lost its server
# (a machine that vanished, a disk that hangs): its connection is dropped, and nobody waits for it.
_SILENCE_SECONDS: Final = 5.0
# A transaction never waits for anything but its own statements, so an idle one is a bug.
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS: Final = 30.0
# asyncpg would reconnect after 50,000 queries and plan everything anew in the middle of a load.
_QUERIES_PER_CONNECTION_MAX: Final = 10_000_000
_CONNECT_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class SessionSettings:
    """How sessions of a pool behave."""

    schema: str
    """The schema that unqualified names mean; nothing else is on the search path."""

    application_name: str = "paymesh"
    """What the server's views call the session."""

    statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS
    """Longest a statement may take; zero for no limit."""

    plan_cache_mode: str | None = None
    """`force_generic_plan` saves half of the fixed cost of a statement over arrays, where the
    plan is known to be right for every size; None leaves the choice to the server."""

    extra: dict[str, str] = field(default_factory=dict)
    """Further settings of the server."""

    @property
    def command_timeout_seconds(self) -> float | None:
        """How long a client waits for the server to answer; None without a limit."""
        limit = self.statement_timeout_seconds
        return limit + _SILENCE_SECONDS if limit else None

    def as_server_settings(self) -> dict[str, str]:
        """Return the settings under the server's names."""
        idle_ms = int(IDLE_IN_TRANSACTION_TIMEOUT_SECONDS * 1000)
        settings = {
            "search_path": self.schema,
            "application_name": self.application_name,
            "timezone": "UTC",
            # Compiling a plan costs more than any statement of ours takes.
            "jit": "off",
            "statement_timeout": str(int(self.statement_timeout_seconds * 1000)),
            "idle_in_transaction_session_timeout": str(idle_ms),
        }
        if self.plan_cache_mode is not None:
            settings["plan_cache_mode"] = self.plan_cache_mode
        return settings | self.extra


class Pool:
    """Connections of one service to its schema."""

    def __init__(self, pool: AsyncpgPool, url: str, settings: SessionSettings) -> None:
        self._pool = pool
        self._url = url
        self._settings = settings

    @property
    def schema(self) -> str:
        """The schema that unqualified names mean."""
        return self._settings.schema

    @asynccontextmanager
    async def acquire(self, timeout_seconds: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection; each statement is a transaction by itself.

        Raises:
            TimeoutError: none was free within `timeout_seconds`.
        """
        async with self._pool.acquire(timeout=timeout_seconds) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, undone by an exception.

        `isolation` is `read_committed` (what the server does when none is named),
        `repeatable_read` or `serializable`. No call, publish or sleep belongs inside.
        """
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            yield connection

    async def connect(self) -> Connection:
        """Open a lone connection with the same settings, for locks and settings of a session."""
        return await connect(self._url, self._settings)

    async def fetch_now(self) -> datetime:
        """Return the database's clock (aware, in UTC)."""
        async with self._pool.acquire() as connection:
            now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return now

    def connections(self) -> tuple[int, int]:
        """Return how many connections are open, and how many of them are idle."""
        return self._pool.get_size(), self._pool.get_idle_size()

    async def close(self) -> None:
        """Wait until every connection is back, then close them."""
        await self._pool.close()

    def terminate(self) -> None:
        """Drop every connection, whatever is under way."""
        self._pool.terminate()


async def open_pool(
    url: str,
    settings: SessionSettings,
    *,
    connections_min: int = 1,
    connections_max: int = 8,
) -> Pool:
    """Open a pool.

    Raises:
        OSError, asyncpg.PostgresError: the server cannot be reached or refuses.
    """
    pool: AsyncpgPool = await asyncpg.create_pool(
        url,
        min_size=connections_min,
        max_size=connections_max,
        max_queries=_QUERIES_PER_CONNECTION_MAX,
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=settings.command_timeout_seconds,
        server_settings=settings.as_server_settings(),
        init=set_codecs,
        reset=_leave_session,
    )
    return Pool(pool, url, settings)


async def connect(url: str, settings: SessionSettings) -> Connection:
    """Open a lone connection; the caller closes it."""
    connection: Connection = await asyncpg.connect(
        url,
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=settings.command_timeout_seconds,
        server_settings=settings.as_server_settings(),
    )
    await set_codecs(connection)
    return connection


async def set_codecs(connection: Any) -> None:
    """Let `jsonb` columns be Python values, read and written by orjson."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=_encode_jsonb,
        decoder=_decode_jsonb,
    )


async def _leave_session(_: object) -> None:
    """Nothing to reset: asyncpg has rolled back, and no session setting is ever changed."""


# The binary form of jsonb is one byte of version and the text.
_JSONB_VERSION: Final = b"\x01"


def _encode_jsonb(value: object) -> bytes:
    return _JSONB_VERSION + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(memoryview(data)[1:])
