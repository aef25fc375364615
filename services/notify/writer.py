"""Where the ends of single attempts meet: many travel in one transaction."""

from __future__ import annotations

from typing import Final

from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import classify
from services.notify.domain.deliveries import Outcome
from services.notify.store.deliveries import DeliveryStore

_QUEUE_FACTOR: Final = 32


class OutcomeWriter:
    """Writes of outcomes, coalesced. Each may be repeated: the version guards it."""

    def __init__(self, store: DeliveryStore, flush_items_max: int) -> None:
        self._outcomes: Coalescer[Outcome, bool] = Coalescer(
            store.save_outcomes,
            classify=classify,
            read_back=store.find_written,
            limits=CoalescerLimits(
                batch_weight_max=flush_items_max, queue_weight_max=flush_items_max * _QUEUE_FACTOR
            ),
            name="webhook outcomes",
        )

    async def save(self, outcome: Outcome) -> bool:
        """Write an outcome; False when the delivery changed since it was claimed."""
        return await self._outcomes.submit(outcome)

    async def drain(self) -> None:
        """Wait for everything handed in."""
        await self._outcomes.drain()
