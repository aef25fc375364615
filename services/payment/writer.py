"""Where single flows meet: intents and outcomes of many payments travel in one transaction.

Reading back after a lost answer: an intent that stands with its id was written, an outcome that
stands as it was to be was written. Both writes may be repeated, so what is not found is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import classify
from services.payment.domain.payments import Payment
from services.payment.store.payments import PaymentStore
from services.payment.store.rows import Change, Intent

# Two transactions under way at a time would lock the same rows for nothing gained.
_QUEUE_FACTOR: Final = 32


class PaymentWriter:
    """Writes of payments, coalesced."""

    def __init__(self, store: PaymentStore, flush_items_max: int) -> None:
        self._store = store
        limits = CoalescerLimits(
            batch_weight_max=flush_items_max, queue_weight_max=flush_items_max * _QUEUE_FACTOR
        )
        self._intents: Coalescer[Intent, Payment | None] = Coalescer(
            store.record_intents,
            classify=classify,
            read_back=self._find_intents,
            limits=limits,
            name="payment intents",
        )
        self._changes: Coalescer[Change, bool] = Coalescer(
            store.save_changes,
            classify=classify,
            read_back=self._find_changes,
            limits=limits,
            name="payment outcomes",
        )

    async def record_intent(self, intent: Intent) -> Payment | None:
        """Write an intent; None when it is new, else the payment that has its id."""
        return await self._intents.submit(intent)

    async def save_change(self, change: Change) -> bool:
        """Write an outcome; False when the payment changed since it was read."""
        return await self._changes.submit(change)

    async def drain(self) -> None:
        """Wait for everything handed in."""
        await self._intents.drain()
        await self._changes.drain()

    async def _find_intents(self, intents: Sequence[Intent]) -> list[Payment | None]:
        # Found is answered as a repeat is: flows compare the content and go on from its state.
        found = {p.id: p for p in await self._store.find_payments([i.payment.id for i in intents])}
        return [found.get(intent.payment.id) for intent in intents]

    async def _find_changes(self, changes: Sequence[Change]) -> list[bool | None]:
        ids = [change.after.id for change in changes]
        found = {p.id: p for p in await self._store.find_payments(ids)}
        answers: list[bool | None] = []
        for change in changes:
            now = found.get(change.after.id)
            if now is None or now.version < change.after.version:
                answers.append(None)
            else:
                # Another writer may have made the same version something else.
                answers.append(_as_written(now, change.after) == change.after)
        return answers


def _as_written(now: Payment, after: Payment) -> Payment:
    """Return a payment without what others change of it beside its versions: refunds, and when."""
    return replace(
        now,
        refunded_minor=after.refunded_minor,
        refunding_minor=after.refunding_minor,
        fee_given_back_minor=after.fee_given_back_minor,
        updated_at=after.updated_at,
    )
