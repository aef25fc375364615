"""How many requests each merchant may send: a bucket of tokens each, in this process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from common.clock import Clock
from services.edge.domain import TokenBucket
from services.edge.errors import RateLimitedError

# Merchants active at once in one process; one that was forgotten begins with a full bucket.
_BUCKETS_MAX: Final = 10_000


class RateLimits:
    """One bucket per merchant and world."""

    def __init__(self, clock: Clock, per_second: int, burst: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = max(burst, 1)
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()

    def check(self, merchant_id: str, mode: str) -> None:
        """Count a request; raises RateLimitedError with the time to wait."""
        if not self._per_second:
            return
        now = self._clock.monotonic()
        key = (merchant_id, mode)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._per_second, self._burst, now)
            if len(self._buckets) > _BUCKETS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        wait = bucket.take(now)
        if wait:
            raise RateLimitedError(retry_after_seconds=wait, limit_per_second=self._per_second)
