"""Whoever reads an open payment wants to know: the janitor is sent at once, and nobody waits.

Nothing is done for young payments, whose first call is still under way, nor for ended ones.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from common.clock import Clock
from services.payment.config import PaymentSettings
from services.payment.domain.payments import Payment
from services.payment.domain.states import PAYMENT_ENDED, PaymentState
from services.payment.store.payments import PaymentStore
from services.payment.store.rows import ADVANCE_PAYMENT

_log = structlog.get_logger(__name__)

# Beyond so many at once the janitor has more than enough to do by itself.
_UNDER_WAY_MAX: Final = 64
_REMEMBERED_MAX: Final = 10_000


class Readers:
    """Hastens the jobs of payments that are read, bounded and at most so often."""

    def __init__(self, store: PaymentStore, clock: Clock, settings: PaymentSettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._asked: dict[str, float] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def note(self, payment: Payment) -> None:
        """A payment was read; returns at once."""
        if payment.state in PAYMENT_ENDED or payment.state is PaymentState.CONFLICTED:
            return
        age = (self._clock.now() - payment.created_at).total_seconds()
        if age < self._settings.ask_on_read_after_seconds:
            return
        now = self._clock.monotonic()
        last = self._asked.get(payment.id)
        if last is not None and now - last < self._settings.ask_on_read_every_seconds:
            return
        if len(self._under_way) >= _UNDER_WAY_MAX:
            return
        if len(self._asked) >= _REMEMBERED_MAX:
            self._asked.clear()
        self._asked[payment.id] = now
        task = asyncio.create_task(self._hasten(payment.id), name="payment read")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._under_way)

    async def _hasten(self, payment_id: str) -> None:
        try:
            await self._store.hasten(ADVANCE_PAYMENT, payment_id)
        except Exception as error:  # noqa: BLE001 - the job comes by itself, only later
            _log.info("nothing hastened", payment_id=payment_id, error=repr(error))
