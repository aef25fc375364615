"""A session of the model: finds the model of each statement, keeps transactions whole and alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal, Protocol

import asyncpg

from common.db.types import Record
from tests.model_stores.rows import Row
from tests.model_stores.statements import Rows, Statement
from tests.model_stores.tables import Journal

# Settings, locks and partitions, of which the model has none.
_NOTHING: Final = (
    "SET ",
    "SELECT pg_advisory_xact_lock($1)",
    "SELECT EXISTS (SELECT FROM pg_class",
    "CREATE TABLE ",
    "ALTER TABLE ",
)


class ModelError(AssertionError):
    """The model was asked for what it cannot know, or a rule of transactions was broken."""


class SchemaRows(Rows, Protocol):
    """The schema, as a session sees it."""

    name: str
    journal: Journal

    def find_statement(self, text: str) -> tuple[str, Statement] | None:
        """Return the name and the model of a statement."""
        ...


class ModelConnection:
    """One session (`common.db.types.Connection`)."""

    def __init__(
        self,
        schema: SchemaRows,
        step: Callable[[str, Literal["before", "after"]], Awaitable[None]],
    ) -> None:
        self._schema = schema
        self._step = step
        self._is_in_transaction = False
        self._is_failed = False
        self._is_readonly = False
        self._is_closed = False
        self._name = ""
        """Of the transaction, once its first statement has begun it."""

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:
        """Run a statement."""
        command = query.strip().upper()
        if command == "BEGIN":
            self._enter(readonly=False)
        elif command == "COMMIT":
            await self._commit()
        elif command == "ROLLBACK":
            self._roll_back()
        else:
            await self._run(query, arguments)
        return ""

    async def fetch(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> list[Record]:
        """Run a query; return all rows."""
        return list(await self._run(query, arguments))

    async def fetchrow(
        self, query: str, *arguments: Any, timeout: float | None = None
    ) -> Record | None:
        """Run a query; return its first row, or None."""
        rows = await self._run(query, arguments)
        return rows[0] if rows else None

    async def fetchval(
        self, query: str, *arguments: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Run a query; return one column of its first row, or None."""
        rows = await self._run(query, arguments)
        return rows[0][column] if rows else None

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
    ) -> AbstractAsyncContextManager[Any]:
        """A transaction; savepoints are not modelled."""
        return self._transaction(readonly=readonly)

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._is_in_transaction

    def is_closed(self) -> bool:
        """Whether the session has ended."""
        return self._is_closed

    async def close(self, *, timeout: float | None = None) -> None:
        """End the session."""
        self.terminate()

    def terminate(self) -> None:
        """Drop the session, and with it what was not committed."""
        self._roll_back()
        self._is_closed = True

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement once for each sequence of arguments."""
        raise ModelError("executemany is not modelled")

    def cursor(
        self, query: str, *arguments: Any, prefetch: int | None = None
    ) -> AsyncIterator[Record]:
        """Read a large answer piece by piece."""
        raise ModelError("cursors are not modelled")

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
        raise ModelError("COPY is not modelled")

    # Transactions.

    @asynccontextmanager
    async def _transaction(self, *, readonly: bool) -> AsyncIterator[None]:
        self._enter(readonly=readonly)
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        await self._commit()

    def _enter(self, *, readonly: bool) -> None:
        if self._is_in_transaction:
            raise ModelError("savepoints are not modelled")
        self._is_in_transaction, self._is_failed, self._is_readonly = True, False, readonly
        self._name = ""

    async def _begin(self, name: str) -> None:
        """Wait for the transaction's turn; from here to its end nobody else runs."""
        await self._step(name, "before")
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        if not self._schema.journal.open(self):
            raise ModelError(f"{name} ran while a transaction waited for something else")
        self._name = name

    async def _commit(self) -> None:
        name, is_failed = self._name, self._is_failed
        if is_failed:
            self._roll_back()
            return
        self._schema.journal.commit(self)
        self._is_in_transaction, self._name = False, ""
        if name:
            await self._step(name, "after")

    def _roll_back(self) -> None:
        self._schema.journal.undo(self)
        self._is_in_transaction, self._name = False, ""

    # Statements.

    async def _run(self, query: str, arguments: Sequence[Any]) -> list[Row]:
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        if query.startswith(_NOTHING):
            return []
        found = self._schema.find_statement(query)
        if found is None:
            raise ModelError(f"{self._schema.name} has no model of: {query[:200]}")
        name, function = found
        full_name = f"{self._schema.name}.{name}"
        if self._is_in_transaction:
            return await self._run_inside(full_name, function, arguments)
        await self._begin(full_name)
        try:
            rows = function(self._schema, *arguments)
        except BaseException:
            self._roll_back()
            raise
        await self._commit()
        return rows or []

    async def _run_inside(
        self, name: str, function: Statement, arguments: Sequence[Any]
    ) -> list[Row]:
        if self._is_failed:
            raise asyncpg.InFailedSQLTransactionError("the transaction has failed before")
        if not self._name:
            await self._begin(name)
        try:
            rows = function(self._schema, *arguments)
        except BaseException:
            self._is_failed = True
            raise
        if self._is_readonly and not self._schema.journal.is_empty:
            self._is_failed = True
            raise asyncpg.ReadOnlySQLTransactionError(f"{name} writes")
        return rows or []
