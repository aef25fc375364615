"""A world's rows in PostgreSQL, so that the seeds of the model can be run on the real thing.

The simulated loop has no sockets, so statements run on a thread with a loop of its own, and the
simulated world stands still until they are answered: a transaction takes no virtual time, and
comes between the same two moments as on the model. So a seed does the same on both, step by step.

The server's clock would be the only one that is not the world's. It is covered by a function of the
same name in each schema, which the search path finds before the server's own.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from common.clock import Clock
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, set_codecs
from common.db.queries import load_queries
from common.db.roles import prepare_schema
from common.db.types import Connection, Record
from tests.simulation.stores import SERVICES, Row, Step
from tests.simulation.wiring import WIRINGS

T = TypeVar("T")

_ANSWER_SECONDS_MAX: Final = 60.0
_CLOCK: Final = """
CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT current_setting('paymesh.now')::timestamptz
$$;
"""
_NO_STEPS: Final = (
    "SET ",
    "CREATE ",
    "ALTER ",
    "SELECT pg_advisory",
    "SELECT EXISTS (SELECT FROM pg_class",
)
"""Beginnings of statements that the model knows nothing of: settings, locks, partitions."""
_CLEAR: Final = """
SELECT format('DELETE FROM %I.%I', nspname, relname) FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relkind IN ('r', 'p') AND NOT relispartition
    AND relname NOT IN ('schema_migrations', 'journal_numbering')
"""


@contextmanager
def new_database(runner: asyncio.Runner, url: str) -> Iterator[str]:
    """Make an empty database beside that of `url`; dropped at the end."""
    name = f"simulation_{secrets.token_hex(8)}"
    runner.run(_execute(url, f"CREATE DATABASE {name} TEMPLATE template0"))
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        runner.run(_execute(url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class PostgresServer:
    """A database with the schemas of the simulated services, and the thread that speaks with it."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._sessions: dict[str, Any] = {}
        self._clearing: list[str] = []
        self.wait(self._open(url))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the thread do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_SECONDS_MAX)

    async def _open(self, url: str) -> None:
        self._admin = await asyncpg.connect(url)
        # Money rows refuse to be deleted; between two worlds they have to.
        await self._admin.execute("SET session_replication_role = replica")
        for service in SERVICES:
            schema_url = await prepare_schema(url, service)
            await migrate(schema_url, service, {service: WIRINGS[service].MIGRATIONS})
            settings = SessionSettings(f"{service}, pg_catalog").as_server_settings()
            session = await asyncpg.connect(schema_url, server_settings=settings)
            await set_codecs(session)
            for name in ("clock_timestamp", "now"):
                await session.execute(_CLOCK.format(schema=service, name=name))
            self._sessions[service] = session
            self._clearing += [row[0] for row in await self._admin.fetch(_CLEAR, service)]

    def clear(self) -> None:
        """Forget all rows."""
        self.wait(self._admin.execute(";".join(self._clearing)))

    def fetch_all(self, service: str, table: str) -> list[Row]:
        """Return all rows of a table."""
        query = f"SELECT * FROM {service}.{table}"  # noqa: S608 - names of our own
        return [dict(row) for row in self.wait(self._admin.fetch(query))]

    def session(self, service: str) -> Any:
        """Return the one session of a service's role."""
        return self._sessions[service]

    def close(self) -> None:
        """End the sessions and the thread."""
        for session in (*self._sessions.values(), self._admin):
            with suppress(Exception):
                self.wait(session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PostgresStores:
    """The tables of one world."""

    def __init__(self, server: PostgresServer, clock: Clock, step: Step) -> None:
        server.clear()
        self._server = server
        self._clock = clock
        self._step = step
        self._names = {service: _names(service) for service in SERVICES}

    def pool(self, service: str) -> Pool:
        """Return a pool on the service's schema."""
        return _Pool(self._server, service, self._clock, self._step, self._names[service])

    def rows(self, service: str, table: str) -> Sequence[Row]:
        """Return all rows of a table."""
        return self._server.fetch_all(service, table)


def _names(service: str) -> dict[str, str]:
    """Return the names of statements by their text."""
    names: dict[str, str] = {}
    for source in ("common.events", "common.jobs", "common.db", f"services.{service}"):
        for file in files(source).iterdir():
            if file.name.endswith("queries.sql"):
                queries = load_queries(source, file.name)
                names |= {queries[name]: name for name in queries}
    return names


class _Pool(Pool):
    """A pool whose statements run on the thread."""

    def __init__(
        self,
        server: PostgresServer,
        service: str,
        clock: Clock,
        step: Step,
        names: dict[str, str],
    ) -> None:
        self._parts = server, service, clock, step, names
        self._settings = SessionSettings(service)

    @asynccontextmanager
    async def acquire(self, timeout_seconds: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection."""
        yield _Connection(*self._parts)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction."""
        connection = _Connection(*self._parts)
        async with connection.transaction(isolation=isolation, readonly=readonly):
            yield connection

    async def connect(self) -> Connection:
        """Open a lone connection."""
        return _Connection(*self._parts)

    async def fetch_now(self) -> datetime:
        """Return the world's clock."""
        return self._parts[2].now()

    async def close(self) -> None:
        """Nothing to close: the session is the world's."""

    def terminate(self) -> None:
        """Nothing to drop."""


class _Connection:
    """A session, as a service sees it. Transactions of one schema run one after the other."""

    def __init__(
        self,
        server: PostgresServer,
        service: str,
        clock: Clock,
        step: Step,
        names: dict[str, str],
    ) -> None:
        self._server = server
        self._session = server.session(service)
        self._service = service
        self._clock = clock
        self._step = step
        self._names = names
        self._is_wanted = False
        """A transaction is to begin with the first statement."""
        self._begin = "BEGIN"
        self._name = ""
        """Of the open transaction."""
        self._is_closed = False

    # Statements.

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:
        """Run a statement."""
        command = query.strip().upper()
        if command == "BEGIN":
            self._is_wanted = True
        elif command == "COMMIT":
            await self._commit()
        elif command == "ROLLBACK":
            self._roll_back()
        else:
            found: str = await self._run(self._session.execute, query, *arguments)
            return found
        return ""

    async def fetch(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> list[Record]:
        """Run a query; return all rows."""
        rows: list[Record] = await self._run(self._session.fetch, query, *arguments)
        return rows

    async def fetchrow(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> Record | None:
        """Run a query; return its first row, or None."""
        row: Record | None = await self._run(self._session.fetchrow, query, *arguments)
        return row

    async def fetchval(
        self, query: str, *arguments: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Run a query; return one column of its first row, or None."""
        row = await self.fetchrow(query, *arguments)
        return None if row is None else row[column]

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement once for each sequence of arguments."""
        await self._run(self._session.executemany, command, list(args))

    def cursor(
        self, query: str, *arguments: Any, prefetch: int | None = None
    ) -> AsyncIterator[Record]:
        """Refuse: no simulated service reads piece by piece."""
        raise NotImplementedError

    async def copy_records_to_table(self, table_name: str, **others: Any) -> str:
        """Refuse: no simulated service copies."""
        raise NotImplementedError

    async def _run(self, work: Any, query: str, *arguments: Any) -> Any:
        if query.startswith(_NO_STEPS) and not self._name:
            return self._server.wait(work(query, *arguments))
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        if self._name:
            return self._server.wait(work(query, *arguments))
        name = f"{self._service}.{self._names.get(query, 'unnamed')}"
        await self._step(name, "before")
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        self._set_clock()
        if self._is_wanted:
            self._server.wait(self._session.execute(self._begin))
            self._is_wanted, self._name = False, name
            return self._server.wait(work(query, *arguments))
        answer = self._server.wait(work(query, *arguments))
        await self._step(name, "after")
        return answer

    def _set_clock(self) -> None:
        now = self._clock.now().isoformat()
        self._server.wait(self._session.execute("SELECT set_config('paymesh.now', $1, false)", now))

    # Transactions.

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        """A transaction."""
        words = ["BEGIN"]
        if isolation is not None:
            words.append(f"ISOLATION LEVEL {isolation.replace('_', ' ').upper()}")
        if readonly:
            words.append("READ ONLY")
        self._begin = " ".join(words)
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        self._is_wanted = True
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        await self._commit()

    async def _commit(self) -> None:
        name, self._name, self._is_wanted = self._name, "", False
        if name:
            self._server.wait(self._session.execute("COMMIT"))
            await self._step(name, "after")

    def _roll_back(self) -> None:
        name, self._name, self._is_wanted = self._name, "", False
        if name:
            self._server.wait(self._session.execute("ROLLBACK"))

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._name) or self._is_wanted

    def is_closed(self) -> bool:
        """Whether the session has ended."""
        return self._is_closed

    async def close(self, *, timeout: float | None = None) -> None:
        """End the session."""
        self.terminate()

    def terminate(self) -> None:
        """Drop the session, and what was not committed."""
        self._roll_back()
        self._is_closed = True
