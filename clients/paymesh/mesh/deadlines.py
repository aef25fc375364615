"""Deadlines of many calls at the price of one timer.

A timer of the event loop for every call costs more than the rest of a hop. Calls are put into
buckets of a few milliseconds instead, and one timer serves the next bucket that is not empty. A
call fails at most one bucket late, never early.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")

TICK_SECONDS: Final = 0.005
"""Width of a bucket. Deadlines of payments are seconds, so 5 ms late is on time."""


class Deadlines(Generic[ItemT]):
    """Calls `expire` with every item whose instant has passed and that was not removed."""

    def __init__(
        self,
        expire: Callable[[ItemT], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expire = expire
        self._monotonic = monotonic
        self._buckets: dict[int, set[ItemT]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def add(self, item: ItemT, at: float) -> set[ItemT]:
        """Watch `item` until the instant `at` of `monotonic`.

        Returns the bucket; an item that is done takes itself out with `bucket.discard(item)`.
        """
        tick = int(at / TICK_SECONDS) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            heapq.heappush(self._order, tick)
            if self._timer is None or tick < self._timer_tick:
                self._arm(tick)
        bucket.add(item)
        return bucket

    def close(self) -> None:
        """Forget all items."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._order.clear()

    def _arm(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_tick = tick
        delay = max(0.0, tick * TICK_SECONDS - self._monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._monotonic()
        order, buckets = self._order, self._buckets
        while order:
            tick = order[0]
            bucket = buckets[tick]
            if bucket and tick * TICK_SECONDS > now:
                self._arm(tick)
                return
            # An empty bucket of the future is dropped too: whoever comes makes a new one.
            heapq.heappop(order)
            del buckets[tick]
            while bucket:
                self._expire(bucket.pop())
