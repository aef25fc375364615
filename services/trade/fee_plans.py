"""Fee plans kept in memory for as long as settlement allows, asked for once by many callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from common.clock import Clock
from services.trade.domain import FeePlan


@dataclass(frozen=True, slots=True)
class QuotedPlan:
    """A plan as settlement answered it."""

    plan: FeePlan
    ttl_seconds: float
    """How long it may be kept."""


Key = tuple[str, str, str]
"""Tenant, mode, merchant."""


class FeePlans:
    """The plans of merchants; while one is being asked for, others who want it wait for it."""

    def __init__(
        self, ask: Callable[[str], Awaitable[QuotedPlan]], clock: Clock, plans_max: int
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._plans_max = plans_max
        self._kept: dict[Key, tuple[FeePlan, float]] = {}
        self._asking: dict[Key, asyncio.Task[FeePlan]] = {}

    async def find(self, tenant_id: str, mode: str, merchant_id: str) -> FeePlan:
        """Return a merchant's plan; raises what the call to settlement raises."""
        key = (tenant_id, mode, merchant_id)
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() < kept[1]:
            return kept[0]
        task = self._asking.get(key)
        if task is None:
            # A task of its own: the caller that happens to be first may give up.
            task = asyncio.get_running_loop().create_task(self._refresh(key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _refresh(self, key: Key) -> FeePlan:
        asked_at = self._clock.monotonic()
        quoted = await self._ask(key[2])
        while len(self._kept) >= self._plans_max:
            self._kept.pop(next(iter(self._kept)))
        self._kept.pop(key, None)
        self._kept[key] = (quoted.plan, asked_at + quoted.ttl_seconds)
        return quoted.plan

    def _forget(self, key: Key, done: asyncio.Task[FeePlan]) -> None:
        self._asking.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever waited has heard of it
