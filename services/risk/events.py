"""What risk hears: how payments ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.db.types import Connection
from common.events.consumer import AfterCommit
from common.events.event import Event
from services.risk.flows.parts import Parts
from services.risk.store import Resolution

_SUCCEEDED: Final = "payment.payment.succeeded.v1"

BINDINGS: Final = (
    _SUCCEEDED,
    "payment.payment.failed.v1",
    "payment.payment.returned.v1",
    "payment.payment.unclaimed.v1",
)
"""Routing keys that risk hears; the aggregate is the payment, whose id is the action's."""


class PaymentNews:
    """Confirms what succeeded and releases what failed or went back."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def handle(
        self, connection: Connection, events: Sequence[Event]
    ) -> Sequence[AfterCommit]:
        """Note the ends of a batch inside the inbox's transaction; the counters hear after it."""
        resolutions = [
            Resolution(
                action_id=event.aggregate_id,
                confirmed=event.type == _SUCCEEDED,
                tenant_id=event.principal.tenant_id,
                mode=str(event.principal.mode),
                biz_trace_id=event.biz_trace_id,
                cause=event.event_id,
            )
            for event in events
        ]
        await self._parts.store.add_resolutions(connection, resolutions, self._parts.clock.now())
        return [self._wake]

    async def _wake(self) -> None:
        self._parts.news.set()
