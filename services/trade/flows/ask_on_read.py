"""Whoever reads an open order or refund wants to know: payment is asked, and nobody waits for it.

Asking payment about its payments makes its janitor look at once. Nothing is done for young orders,
whose first calls are still under way, nor for ended ones; at most so many questions are under way,
and at most one about the same order every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from common.clock import Clock
from common.context import CallContext, bound
from services.trade.config import TradeSettings
from services.trade.domain import REFUND_ENDED, Order, OrderState, Refund
from services.trade.flows.create_refund import ask_about_refund
from services.trade.flows.parts import Parts, own_call

_log = logging.getLogger(__name__)

_ENDED: Final = frozenset({OrderState.COMPLETED, OrderState.CLOSED})
_UNDER_WAY_MAX: Final = 32
_REMEMBERED_MAX: Final = 10_000
_CAUSE: Final = "read"


class Readers:
    """Asks payment about what is read, bounded and at most so often."""

    def __init__(self, parts: Parts, clock: Clock, settings: TradeSettings) -> None:
        self._parts = parts
        self._clock = clock
        self._settings = settings
        self._asked: dict[str, float] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def note_order(self, order: Order) -> None:
        """An order was read; returns at once."""
        if order.state in _ENDED:
            return

        async def ask() -> None:
            await self._parts.peers.look_at_payments(order.id)

        self._note(order.id, order.created_at, ask, own_call(order, _CAUSE))

    def note_refund(self, refund: Refund) -> None:
        """A refund was read; returns at once."""
        if refund.state in REFUND_ENDED:
            return

        async def ask() -> None:
            await ask_about_refund(self._parts, refund)

        self._note(refund.id, refund.created_at, ask, own_call(refund, _CAUSE))

    async def drain(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._under_way)

    def _note(
        self,
        noun_id: str,
        created_at: datetime,
        ask: Callable[[], Awaitable[None]],
        call: CallContext,
    ) -> None:
        age = (self._clock.now() - created_at).total_seconds()
        if age < self._settings.ask_on_read_after_seconds:
            return
        now = self._clock.monotonic()
        last = self._asked.get(noun_id)
        if last is not None and now - last < self._settings.ask_on_read_every_seconds:
            return
        if len(self._under_way) >= _UNDER_WAY_MAX:
            return
        if len(self._asked) >= _REMEMBERED_MAX:
            self._asked.clear()
        self._asked[noun_id] = now
        # The reader's deadline is the reader's; this is done for whoever reads next.
        work = _ask(noun_id, ask, replace(call, deadline_at=None))
        task = asyncio.create_task(work, name="order read")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _ask(noun_id: str, ask: Callable[[], Awaitable[None]], call: CallContext) -> None:
    try:
        with bound(call):
            await ask()
    except Exception as error:  # noqa: BLE001 - it is asked about again in time, without readers
        _log.info("%s: payment was not asked: %r", noun_id, error)
