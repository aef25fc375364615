"""PostgreSQL and the model side by side: the same cases on each, the same operations on both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool, set_codecs
from common.db.roles import prepare_schema
from tests.model_stores.database import SCHEMAS, ModelPool
from tests.model_stores.tables import TableSpec

T = TypeVar("T")

SERVERS_CLOCK: Final[Mapping[str, frozenset[str]]] = {
    "history": frozenset({"recorded_at"}),
    "outbox": frozenset({"recorded_at", "position", "published_at"}),
    "jobs": frozenset({"ended_at"}),
    "inbox": frozenset({"received_at"}),
    "inbox_parked": frozenset({"due_at", "parked_at"}),
    "inbox_dead": frozenset({"died_at"}),
    "accounts": frozenset({"created_at", "updated_at"}),
    "account_changes": frozenset({"changed_at"}),
    "transfers": frozenset({"booked_at"}),
    "entries": frozenset({"booked_at", "appended_at"}),
    "buffered_credits": frozenset({"booked_at", "place"}),
    "holds": frozenset({"expires_at"}),
    "resolutions": frozenset({"resolved_at"}),
    "business_date_changes": frozenset({"advanced_at"}),
}
"""Columns that the server's clock or its sequences fill, so that no two databases agree on them."""

NOT_MODELLED: Final[Mapping[str, tuple[str, ...]]] = {
    "account": ("business_days", "business_day_changes"),
}
"""Tables that the model leaves out, and that modelled statements write all the same."""

# Long sequences find more than many do. Nothing is shrunk: each try of it empties two databases.
EXAMPLES: Final = settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def stable_columns(table: TableSpec, schema: str) -> tuple[str, ...]:
    """Return the columns that both sides must agree on."""
    clocked = SERVERS_CLOCK.get(table.name, frozenset())
    if (schema, table.name) == ("account", "business_dates"):
        clocked = frozenset({"advanced_at"})
    if (schema, table.name) == ("payment", "jobs"):
        clocked = frozenset({"created_at", "ended_at", "run_at"})
    return tuple(name for name in table.columns if name not in clocked)


def order_of(table: TableSpec) -> tuple[str, ...]:
    """Return the columns that rows are compared in the order of."""
    return ("position",) if table.name == "outbox" else table.key


@dataclass
class Side:
    """One of the two, as a case sees it."""

    name: str
    schema: str
    pool: Pool

    async def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows by table, without what the server's clock says."""
        raise NotImplementedError


@dataclass
class PostgresSide(Side):
    """The real one."""

    url: str
    """The database as a role that may empty append-only tables."""

    async def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows by table, without what the server's clock says."""
        tables = {}
        connection = await self._connect()
        try:
            for table in SCHEMAS[self.schema].tables:
                columns = stable_columns(table, self.schema)
                # Names of columns and tables are our own.
                rows = await connection.fetch(
                    f"SELECT {', '.join(columns)} FROM {table.name} "  # noqa: S608
                    f"ORDER BY {', '.join(order_of(table))}"
                )
                tables[table.name] = [dict(row.items()) for row in rows]
        finally:
            await connection.close()
        return {name: _sorted(name, self.schema, rows) for name, rows in tables.items()}

    async def clear(self) -> None:
        """Empty every table, also those that refuse it."""
        names = [table.name for table in SCHEMAS[self.schema].tables]
        names += NOT_MODELLED.get(self.schema, ())
        connection = await self._connect()
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute("; ".join(f"DELETE FROM {name}" for name in names))  # noqa: S608
        finally:
            await connection.close()

    async def _connect(self) -> Any:
        connection = await asyncpg.connect(
            self.url, server_settings={"search_path": self.schema, "timezone": "UTC"}
        )
        await set_codecs(connection)
        return connection


@dataclass
class ModelSide(Side):
    """The model."""

    pool: ModelPool

    async def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows by table, without what the server's clock says."""
        tables = {}
        for table in SCHEMAS[self.schema].tables:
            columns = stable_columns(table, self.schema)
            rows = self.pool.model.dump(table.name)
            rows.sort(key=lambda row: tuple(row[name] for name in order_of(table)))
            tables[table.name] = [{name: row[name] for name in columns} for row in rows]
        return {name: _sorted(name, self.schema, rows) for name, rows in tables.items()}


def _sorted(table: str, schema: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort as Python does: the order of text in a database depends on its collation."""
    if table == "outbox":
        # A statement answers rows in no order, so only an aggregate's events have one.
        return sorted(rows, key=lambda row: str(row["aggregate_id"]))
    key = next(one.key for one in SCHEMAS[schema].tables if one.name == table)
    return sorted(rows, key=lambda row: tuple(row[name] for name in key))


@dataclass
class Twins:
    """Both, to be told the same and compared."""

    real: PostgresSide
    model: ModelSide
    sides: tuple[Side, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.sides = (self.real, self.model)

    async def clear(self) -> None:
        """Empty both."""
        await self.real.clear()
        self.model.pool.model.clear()

    async def compare_rows(self) -> None:
        """Every table holds the same rows."""
        real, model = await self.real.dump(), await self.model.dump()
        for name, rows in real.items():
            assert model[name] == rows, f"rows of {name} differ"


async def outcome_of(work: Awaitable[Any]) -> Any:
    """Return what a call answers, or the error that it raises, to be compared."""
    try:
        return await work
    except asyncpg.PostgresError as error:
        return type(error)
    except Exception as error:  # noqa: BLE001 - compared with the other side's
        return type(error), getattr(error, "metadata", str(error))


async def prepare_postgres(url: str, schema: str) -> PostgresSide:
    """Make a service's schema in an empty database."""
    folder = Path(import_module(f"services.{schema}").__path__[0]) / "migrations"
    own_url = await prepare_schema(url, schema)
    await migrate(own_url, schema, {schema: folder})
    pool = await open_pool(own_url, SessionSettings(schema), connections_max=3)
    return PostgresSide("postgres", schema, pool, url)


async def try_examples(
    strategy: st.SearchStrategy[T], compare: Callable[[T], Coroutine[Any, Any, None]]
) -> None:
    """Let Hypothesis try examples, each run on this loop."""
    loop = asyncio.get_running_loop()

    @EXAMPLES
    @given(strategy)
    def run(example: T) -> None:
        asyncio.run_coroutine_threadsafe(compare(example), loop).result(60)

    await asyncio.to_thread(run)


def in_order(rows: Sequence[Any]) -> list[Any]:
    """Return answers of a statement that promises no order, sorted."""
    return sorted(rows, key=repr)
