"""A circuit breaker for each target: a peer that fails again and again is left alone a while.

Only failures of reaching it count (away, or too late): a service that answers with an error is
well. While open, calls fail at once as NOT_EXECUTED; after a pause one call tries, and its end
decides.
"""

from __future__ import annotations

from typing import Final

from common.clock import Clock
from common.errors import Outcome, RemoteError, Retry, UnavailableError
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware

_COUNTED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


class _Target:
    __slots__ = ("failures", "is_trying", "open_until")

    def __init__(self) -> None:
        self.failures = 0
        self.open_until = 0.0
        self.is_trying = False


class OutgoingBreaker(OutgoingMiddleware):
    """Counts failures in a row by target; opens at the bound."""

    def __init__(self, clock: Clock, failures_max: int, open_seconds: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._targets: dict[str, _Target] = {}

    def before(self, call: OutgoingCall) -> None:
        """Keep the call when its target's breaker is open."""
        if call.is_local:
            return
        target = self._targets.get(call.target)
        if target is None or target.failures < self._failures_max:
            return
        left = target.open_until - self._clock.monotonic()
        if left > 0 or target.is_trying:
            raise UnavailableError(
                target=call.target,
                outcome=Outcome.NOT_EXECUTED,
                retry=Retry.AFTER_DELAY,
                retry_after_seconds=max(left, 0.01),
            )
        target.is_trying = True

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Count a failure, or forget the ones before."""
        if call.is_local:
            return
        target = self._targets.get(call.target)
        if isinstance(error, RemoteError) and error.remote_reason in _COUNTED:
            if target is None:
                target = self._targets[call.target] = _Target()
            target.failures += 1
            target.is_trying = False
            if target.failures >= self._failures_max:
                target.open_until = self._clock.monotonic() + self._open_seconds
        elif target is not None:
            target.is_trying = False
            # A call that its own caller gave up says nothing about the target.
            if error is None or isinstance(error, RemoteError):
                target.failures = 0
