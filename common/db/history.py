"""History: an append-only row for each change of state, in the same transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.ids import is_id

_QUERIES: Final = load_queries("common.db")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One change of one noun's state."""

    noun: str
    """`payment`."""
    id: str
    version: int
    """The noun's version after the change, from 1."""
    from_state: str
    """Empty when it came into being."""
    to_state: str
    actor: str
    """Who did it: `Principal.actor`."""
    at: datetime
    """When, by the service's clock (aware)."""
    biz_trace_id: str = ""
    """The story it belongs to."""
    reason: str = ""
    """Why, in a few words or a code; no personal datum."""
    cause: str = ""
    """The request, event or job that made it happen."""


def cause_of_request(request_id: str) -> str:
    """Return what a row names as its cause, when the request that a caller numbered is it.

    Callers make such numbers as they like (at the edge they are Idempotency-Keys) and may have put
    anything into them; what is no id is named by its digest, as the edge's journal has it.
    """
    if is_id(request_id):
        return request_id
    return f"sha256:{hashlib.sha256(request_id.encode()).hexdigest()}"


async def add_history(connection: Connection, rows: Sequence[HistoryRow]) -> None:
    """Write rows in the caller's open transaction.

    Raises:
        asyncpg.UniqueViolationError: the noun has a change of this version already, so two
            changes were made from one state: the transaction must not go on.
    """
    if not rows:
        return
    await connection.execute(
        _QUERIES["add_history"],
        [row.noun for row in rows],
        [row.id for row in rows],
        [row.version for row in rows],
        [row.from_state for row in rows],
        [row.to_state for row in rows],
        [row.actor for row in rows],
        [row.reason for row in rows],
        [row.cause for row in rows],
        [row.biz_trace_id for row in rows],
        [row.at for row in rows],
    )


async def list_history(connection: Connection, noun: str, noun_id: str) -> list[HistoryRow]:
    """Return what became of one noun, in the order of its versions."""
    rows = await connection.fetch(_QUERIES["list_history"], noun, noun_id)
    return [_from_row(row) for row in rows]


def _from_row(row: Record) -> HistoryRow:
    return HistoryRow(**dict(row.items()))
