"""Where a world keeps its rows: in the model or in PostgreSQL; services see a `Pool`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from common.clock import Clock
from common.db.pool import Pool
from tests.model_stores.database import ModelDatabase
from tests.model_stores.rows import answered

Step = Callable[[str, Literal["before", "after"]], Awaitable[None]]
"""Awaited around each transaction with its name (`trade.claim_orders`)."""

SERVICES = ("account", "channel", "trade", "payment")
"""The services that are simulated with their tables, in the order in which they start."""

Row = Mapping[str, Any]


class Stores(Protocol):
    """The tables of all services of one world; they outlive every process."""

    def pool(self, service: str) -> Pool:
        """Return a pool of its own for a process of the service."""
        ...

    def rows(self, service: str, table: str) -> Sequence[Row]:
        """Return all rows of a table as they are committed, at this instant."""
        ...


OpenStores = Callable[[Clock, Step], Stores]
"""Makes the empty tables of a new world."""


class ModelStores:
    """Tables in memory (tests/model_stores)."""

    def __init__(self, clock: Clock, step: Step) -> None:
        self._database = ModelDatabase(clock, step)

    def pool(self, service: str) -> Pool:
        """Return a pool on the service's tables."""
        return self._database.pool(service)

    def rows(self, service: str, table: str) -> Sequence[Row]:
        """Return all rows of a table, in no order, and not to be changed."""
        return self._database.schema(service)[table].rows()


def plain(value: Any) -> Any:
    """Return a kept value as a driver would answer it."""
    return answered(value)
