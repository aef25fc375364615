"""Types for asyncpg, which ships none: what services may do with a connection.

Only the part that the platform uses, so that a strict type checker sees every store method. A
connection from a pool and a lone connection both fit `Connection`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Record(Protocol):
    """One row; columns by name or by place."""

    def __getitem__(self, key: str | int | slice) -> Any:
        """The value of a column; a tuple of those of a slice."""
        ...

    def __len__(self) -> int:
        """How many columns."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The values, in the order of the columns."""
        ...

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a column, or `default` where there is no such column."""
        ...

    def keys(self) -> Iterator[str]:
        """Names of the columns."""
        ...

    def values(self) -> Iterator[Any]:
        """Values of the columns."""
        ...

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values of the columns."""
        ...


class Connection(Protocol):
    """One session of the server."""

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:
        """Run a statement (or, without arguments, a script); return the server's command tag."""
        ...

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement once for each sequence of arguments, all or none."""
        ...

    async def fetch(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> list[Record]:
        """Run a query; return all rows."""
        ...

    async def fetchrow(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> Record | None:
        """Run a query; return its first row, or None."""
        ...

    async def fetchval(
        self, query: str, *arguments: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Run a query; return one column of its first row, or None."""
        ...

    def cursor(
        self, query: str, *arguments: Any, prefetch: int | None = None
    ) -> AsyncIterator[Record]:
        """Read a large answer piece by piece, inside a transaction."""
        ...

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[Any]],
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Write rows by the COPY protocol."""
        ...

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
    ) -> AbstractAsyncContextManager[Any]:
        """A transaction, or a savepoint inside of one."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def is_closed(self) -> bool:
        """Whether the session has ended."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """End the session."""
        ...

    def terminate(self) -> None:
        """Drop the session without a word to the server."""
        ...


class AsyncpgPool(Protocol):
    """asyncpg's pool, as far as `common.db.pool` uses it."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection."""
        ...

    def get_size(self) -> int:
        """Connections that are open."""
        ...

    def get_idle_size(self) -> int:
        """Open connections that nobody uses."""
        ...

    async def close(self) -> None:
        """Wait until all connections are back, then close them."""
        ...

    def terminate(self) -> None:
        """Drop all connections."""
        ...
