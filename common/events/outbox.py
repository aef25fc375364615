"""Writing events in the transaction of the change that they tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from common.db.queries import load_queries
from common.db.types import Connection
from common.events.event import NewEvent, event_to_bytes

_QUERIES: Final = load_queries("common.events")


class Outbox:
    """The events of one service that wait to be told."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()

    async def add(self, connection: Connection, events: Sequence[NewEvent]) -> None:
        """Write events in the caller's open transaction, in their order.

        Call `notify` after the commit; without it the relay finds them a little later.

        Raises:
            ValueError: an event is too large.
            asyncpg.PostgresError: the transaction cannot go on.
        """
        if not events:
            return
        await connection.execute(
            _QUERIES["add_events"],
            [event.event_id for event in events],
            [event.type for event in events],
            [event.aggregate_id for event in events],
            [event.aggregate_version for event in events],
            [event.principal.tenant_id for event in events],
            [event.principal.mode for event in events],
            [event.principal.merchant_id for event in events],
            [event.biz_trace_id for event in events],
            [event_to_bytes(event) for event in events],
        )

    async def count_waiting(self, connection: Connection) -> tuple[int, float]:
        """Return how many events were not told yet, and how many seconds the oldest has."""
        row = await connection.fetchrow(_QUERIES["count_waiting_events"])
        return (0, 0.0) if row is None else (row["waiting"], row["oldest_seconds"])

    def notify(self) -> None:
        """Wake this process's relay: events were committed."""
        self._wake.set()

    async def wait(self, timeout_seconds: float) -> None:
        """Wait until events may be there, at most so long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def forget_notifications(self) -> None:
        """Take the wake-ups so far as heard; whoever looks for events calls this first."""
        self._wake.clear()
