"""What the ledger tells: that a business day began. (Its journal is the table of transfers.)"""

from __future__ import annotations

from datetime import date

from paymesh.account.v1 import BusinessDateAdvanced

from common.clock import Clock
from common.context import CallContext
from common.db.types import Connection
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import derive_timeless

BUSINESS_DATE_ADVANCED = "account.business_date.advanced.v1"


class BusinessDateTeller:
    """Writes the event with the move."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def tell(
        self, connection: Connection, book: int, previous: date, now: date, call: CallContext
    ) -> None:
        """Write the event in the transaction of the move; dates count up, so they are versions."""
        event = NewEvent(
            event_id=derive_timeless("evt", BUSINESS_DATE_ADVANCED, now.isoformat(), book=book),
            type=BUSINESS_DATE_ADVANCED,
            aggregate_id=derive_timeless("day", "business date", book=book),
            aggregate_version=now.toordinal(),
            payload=BusinessDateAdvanced(
                business_date=now.isoformat(), previous_date=previous.isoformat()
            ).SerializeToString(),
            principal=call.principal,
            biz_trace_id=call.biz_trace_id,
            causation_id=call.causation_id,
            business_date=now,
            occurred_at=self._clock.now(),
        )
        await self._outbox.add(connection, [event])
