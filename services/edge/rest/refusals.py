"""The record of refusals, written behind the answers and bounded in every way."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from common.backoff import Backoff
from common.clock import Clock
from common.telemetry import metrics
from services.edge.store import Refusal

_log = logging.getLogger(__name__)
_DROPPED = metrics.counter("paymesh.edge.refusals_dropped", "Refusals that were not recorded")
_REFUSED = metrics.counter("paymesh.edge.refusals", "Requests refused at the door, by reason")
_BATCH_MAX: Final = 500

WriteRefusals = Callable[[Sequence[Refusal]], Awaitable[None]]


class Refusals:
    """Refusals that wait to be written; nobody waits for them, so they are simply gathered."""

    def __init__(
        self, write: WriteRefusals, clock: Clock, *, waiting_max: int, per_second_max: int
    ) -> None:
        self._write = write
        self._clock = clock
        self._waiting: deque[Refusal] = deque()
        self._waiting_max = waiting_max
        self._per_second_max = per_second_max
        self._second = 0
        self._in_second = 0
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()

    def add(self, request_id: str, route: str, reason: str, merchant_id: str) -> None:
        """Take down a refusal; dropped and counted when there are too many."""
        _REFUSED.add(1, {"reason": reason})
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > self._per_second_max or len(self._waiting) >= self._waiting_max:
            _DROPPED.add(1)
            return
        self._waiting.append(Refusal(request_id, route, reason, merchant_id, self._clock.now()))
        self._wake.set()

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        backoff = Backoff()
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the record waits until the database is back
                failures += 1
                _log.warning("refusals wait: %r", error)
                await asyncio.sleep(backoff.pause(failures))
                self._wake.set()

    async def flush(self) -> None:
        """Write everything that waits now."""
        async with self._flushing:
            while self._waiting:
                batch = list(itertools.islice(self._waiting, _BATCH_MAX))
                await self._write(batch)
                # Taken away only now: a batch that failed is written again, and a row that was
                # written after all is left alone.
                for _ in batch:
                    self._waiting.popleft()
