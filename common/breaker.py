"""The core of a circuit breaker: who fails again and again is left alone a while, then tried.

Knows nothing of calls or errors: whoever calls says what counts as a failure. After failures in a
row it opens; after a pause one call may try, and its end decides.
"""

from __future__ import annotations

import enum

from common.clock import Clock


class BreakerState(enum.StrEnum):
    """Whether calls may pass."""

    CLOSED = "CLOSED"
    """They may."""
    HALF_OPEN = "HALF_OPEN"
    """The pause is over: one may try, and decides."""
    OPEN = "OPEN"
    """They may not."""


class Breaker:
    """The breaker of one target, inside one process."""

    __slots__ = ("_clock", "_failures", "_failures_max", "_open_seconds", "_tries_until", "_until")

    def __init__(self, clock: Clock, failures_max: int, open_seconds: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._failures = 0
        self._until = 0.0
        self._tries_until = 0.0

    @property
    def state(self) -> BreakerState:
        """How it stands now."""
        if self._failures < self._failures_max:
            return BreakerState.CLOSED
        is_over = self._clock.monotonic() >= self._until
        return BreakerState.HALF_OPEN if is_over else BreakerState.OPEN

    def admit(self) -> float:
        """Ask to pass; return 0 when the call may go, else the seconds until it is worth trying.

        Whoever was let through while it was half-open tells the end by one of the methods below.
        One that takes longer than the pause, or never tells, does not keep the next from trying.
        """
        if self._failures < self._failures_max:
            return 0.0
        now = self._clock.monotonic()
        left = max(self._until, self._tries_until) - now
        if left > 0:
            return max(left, 0.01)
        self._tries_until = now + self._open_seconds
        return 0.0

    def fail(self) -> None:
        """Count a failure of the target."""
        self._failures += 1
        self._tries_until = 0.0
        if self._failures >= self._failures_max:
            self._until = self._clock.monotonic() + self._open_seconds

    def succeed(self) -> None:
        """Forget the failures before: the target answered."""
        self._failures = 0
        self._tries_until = 0.0

    def pass_over(self) -> None:
        """Note the end of a call that says nothing of the target: its caller gave it up."""
        self._tries_until = 0.0
