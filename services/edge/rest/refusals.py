"""The record of refusals, written behind the answers and bounded in every way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from common.clock import Clock
from common.telemetry import metrics
from services.edge.rest.written_behind import WrittenBehind
from services.edge.store import Refusal

_DROPPED = metrics.counter("paymesh.edge.refusals_dropped", "Refusals that were not recorded")
_REFUSED = metrics.counter("paymesh.edge.refusals", "Requests refused at the door, by reason")

WriteRefusals = Callable[[Sequence[Refusal]], Awaitable[None]]


class Refusals:
    """Refusals on their way to their table."""

    def __init__(
        self, write: WriteRefusals, clock: Clock, *, waiting_max: int, per_second_max: int
    ) -> None:
        self._rows = WrittenBehind(
            write,
            waiting_max=waiting_max,
            name="refusals",
            when_refused=lambda _: _DROPPED.add(1),
        )
        self._clock = clock
        self._per_second_max = per_second_max
        self._second = 0
        self._in_second = 0

    def add(self, request_id: str, route: str, reason: str, merchant_id: str) -> None:
        """Take down a refusal; dropped and counted when there are too many."""
        _REFUSED.add(1, {"reason": reason})
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        refusal = Refusal(request_id, route, reason, merchant_id, self._clock.now())
        if self._in_second > self._per_second_max or not self._rows.add(refusal):
            _DROPPED.add(1)

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        await self._rows.run()

    async def flush(self) -> None:
        """Write everything that waits now."""
        await self._rows.flush()
