"""The model's database: schemas, their rows, transactions that run one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from common.clock import Clock
from common.db.pool import Pool, SessionSettings
from common.db.types import Connection
from tests.model_stores import account, channel, common_tables, payment, trade
from tests.model_stores.connection import ModelConnection
from tests.model_stores.rows import Values, answered
from tests.model_stores.statements import Statement, StatementBook
from tests.model_stores.tables import Journal, Table, TableSpec

Moment = Literal["before", "after"]
"""Around a transaction: nothing of it was done yet, or it is committed and nobody has heard."""

Step = Callable[[str, Moment], Awaitable[None]]
"""Awaited with a transaction's name (`trade.claim_orders`, by its first statement) and the moment.
What it raises goes to whoever runs the transaction; before, that undoes it, as nothing was done."""


async def no_step(_: str, __: Moment) -> None:
    """Go on at once."""


@dataclass(frozen=True)
class SchemaSpec:
    """What a service keeps, and the models of its statements."""

    tables: tuple[TableSpec, ...]
    books: tuple[StatementBook, ...]


SCHEMAS: Mapping[str, SchemaSpec] = {
    name: SchemaSpec((*common_tables.TABLES, *tables), (*common_tables.BOOKS, *books))
    for name, tables, books in (
        ("account", account.TABLES, account.BOOKS),
        ("trade", trade.TABLES, trade.BOOKS),
        ("channel", channel.TABLES, channel.BOOKS),
        ("payment", payment.TABLES, payment.BOOKS),
    )
}
"""The schemas that are modelled, by name."""


class Schema:
    """The rows of one service. They belong to no process: services come and go, these stay."""

    def __init__(self, name: str, parts: SchemaSpec, clock: Clock) -> None:
        self.name = name
        self.journal = Journal()
        self._clock = clock
        self._specs = parts.tables
        self._numbers: dict[str, int] = {}
        self.clear()
        self._statements: dict[str, tuple[str, Statement]] = {}
        for book in parts.books:
            self._statements.update(book.by_text())

    def __getitem__(self, name: str) -> Table:
        """A table."""
        return self._tables[name]

    def now(self) -> datetime:
        """The server's clock."""
        return self._clock.now()

    def next_number(self, sequence: str) -> int:
        """The next number of a sequence; numbers that a lost transaction took are gone."""
        number = self._numbers[sequence] = self._numbers.get(sequence, 0) + 1
        return number

    def find_statement(self, text: str) -> tuple[str, Statement] | None:
        """Return the name and the model of a statement."""
        return self._statements.get(text)

    def table_names(self) -> list[str]:
        """Return the names of all tables."""
        return list(self._tables)

    def clear(self) -> None:
        """Empty every table."""
        self._tables = {one.name: Table(one, self.journal) for one in self._specs}

    def dump(self, table: str) -> list[Values]:
        """Return the rows of a table in the order of their keys, as copies."""
        kept = self._tables[table]
        rows = sorted(kept.rows(), key=lambda row: tuple(row[name] for name in kept.spec.key))
        return [{name: answered(value) for name, value in row.items()} for row in rows]


class ModelDatabase:
    """The rows of all modelled services, and where a simulation gets in between.

    Args:
        clock: the servers' clock (and theirs only: services are given their own).
        step: awaited before and after each transaction.
    """

    def __init__(self, clock: Clock, step: Step = no_step) -> None:
        self._clock = clock
        self._step = step
        self._schemas: dict[str, Schema] = {}

    def schema(self, name: str) -> Schema:
        """Return the rows of a service; raises KeyError for one that is not modelled."""
        if name not in self._schemas:
            self._schemas[name] = Schema(name, SCHEMAS[name], self._clock)
        return self._schemas[name]

    def pool(self, name: str) -> ModelPool:
        """Return a pool on a service's schema; a new process takes a new one, on the same rows."""
        return ModelPool(self.schema(name), self._step)


class ModelPool(Pool):
    """A `common.db.pool.Pool` whose connections work on the model."""

    def __init__(self, schema: Schema, step: Step) -> None:
        self._model = schema
        self._step = step
        self._settings = SessionSettings(schema.name)

    @property
    def model(self) -> Schema:
        """The rows behind it, for invariants and comparisons."""
        return self._model

    @asynccontextmanager
    async def acquire(self, timeout_seconds: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection; each statement is a transaction by itself."""
        yield ModelConnection(self._model, self._step)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, undone by an exception."""
        connection = ModelConnection(self._model, self._step)
        async with connection.transaction(isolation=isolation, readonly=readonly):
            yield connection

    async def connect(self) -> Connection:
        """Open a lone connection."""
        return ModelConnection(self._model, self._step)

    async def fetch_now(self) -> datetime:
        """Return the server's clock."""
        return self._model.now()

    def connections(self) -> tuple[int, int]:
        """Return how many connections are open: the model keeps none."""
        return 0, 0

    async def close(self) -> None:
        """Nothing to close: the rows stay."""

    def terminate(self) -> None:
        """Nothing to drop."""
