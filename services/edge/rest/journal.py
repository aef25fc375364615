"""The journal of changing requests and callbacks: what each came to, for the story of its order.

Written behind the answers, so that no caller waits for it. What a killed process had not written
yet (a tenth of a second of it) is lost; the rows of the nouns tell what was done all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from common.clock import Clock
from common.telemetry import metrics
from services.edge.rest.written_behind import WrittenBehind
from services.edge.store import JournalEntry

if TYPE_CHECKING:
    from services.edge.rest.door import Visit

_DROPPED = metrics.counter("paymesh.edge.journal_dropped", "Requests that were not taken down")
# Few commits for many requests, and little to lose.
_PAUSE_SECONDS: Final = 0.1
_ROUND_SECONDS: Final = 3600.0
# Callers write these, and the services judge them: what is no id is not taken down, or its row
# could be too large for an index, and hold up every row behind it.
_ID_FORM: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_log = logging.getLogger(__name__)

WriteEntries = Callable[[Sequence[JournalEntry]], Awaitable[None]]
KeepPartitions = Callable[[], Awaitable[None]]
"""Makes the days ahead and drops those that are old."""


class Journal:
    """Requests and callbacks on their way to their table."""

    def __init__(
        self,
        write: WriteEntries,
        keep_partitions: KeepPartitions,
        clock: Clock,
        *,
        waiting_max: int,
    ) -> None:
        self._rows = WrittenBehind(
            write,
            waiting_max=waiting_max,
            pause_seconds=_PAUSE_SECONDS,
            name="journal entries",
            when_refused=lambda _: _DROPPED.add(1),
        )
        self._keep_partitions = keep_partitions
        self._clock = clock

    def add(self, visit: Visit, http_status: int, reason: str) -> None:
        """Take down how a request ended; dropped and counted when too many wait."""
        repeated_by = visit.callback_body if visit.channel else visit.idempotency_key.encode()
        entry = JournalEntry(
            began_at=visit.began_at,
            ended_at=self._clock.now(),
            http_status=http_status,
            replayed=visit.replayed,
            request_id=visit.request_id,
            kind="callback" if visit.channel else "request",
            route=visit.route,
            mode=visit.mode,
            merchant_id=visit.merchant_id,
            key_id=visit.key_id,
            channel=visit.channel,
            idempotency_key_hash=hashlib.sha256(repeated_by).digest() if repeated_by else b"",
            noun_id=_id_or_nothing(visit.noun_id),
            biz_trace_id=_id_or_nothing(visit.biz_trace_id),
            reason=reason,
        )
        if not self._rows.add(entry):
            _DROPPED.add(1)

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        await self._rows.run()

    async def flush(self) -> None:
        """Write everything that waits now."""
        await self._rows.flush()

    async def run_partitions(self) -> None:
        """Keep the days of the table, once an hour, until cancelled."""
        while True:
            try:
                await self._keep_partitions()
            except Exception as error:  # noqa: BLE001 - the default partition takes the rows
                _log.warning("partitions of the journal: %r", error)
            await asyncio.sleep(_ROUND_SECONDS)


def _id_or_nothing(text: str) -> str:
    return text if _ID_FORM.fullmatch(text) else ""
