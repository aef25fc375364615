"""A circuit breaker for each target: a peer that fails again and again is left alone a while.

Only failures of reaching it count (away, or too late): a service that answers with an error is
well. A call that its caller gave up because the time of both was over is too late as well. While
open, calls fail at once as NOT_EXECUTED; after a pause one call tries, and its end decides.
"""

from __future__ import annotations

from typing import Final

from common.breaker import Breaker
from common.clock import Clock
from common.errors import Outcome, RemoteError, Retry, UnavailableError
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware

_COUNTED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
# A call that never left, because too many wait for the target, says nothing good of it.
_UNSAID: Final = frozenset({"OVERLOADED", "CANCELLED"})


class OutgoingBreaker(OutgoingMiddleware):
    """Counts failures in a row by target; opens at the bound."""

    def __init__(self, clock: Clock, failures_max: int, open_seconds: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._targets: dict[str, Breaker] = {}

    def before(self, call: OutgoingCall) -> None:
        """Keep the call when its target's breaker is open."""
        if call.is_local:
            return
        target = self._targets.get(call.target)
        if target is None:
            return
        wait = target.admit()
        if wait:
            raise UnavailableError(
                target=call.target,
                outcome=Outcome.NOT_EXECUTED,
                retry=Retry.AFTER_DELAY,
                retry_after_seconds=wait,
            )

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Count a failure, or forget the ones before."""
        if call.is_local:
            return
        target = self._targets.get(call.target)
        if self._is_failure(call, error):
            if target is None:
                target = Breaker(self._clock, self._failures_max, self._open_seconds)
                self._targets[call.target] = target
            target.fail()
        elif target is None:
            return
        elif error is None or (
            isinstance(error, RemoteError) and error.remote_reason not in _UNSAID
        ):
            target.succeed()
        else:
            # A call that its own caller gave up says nothing about the target.
            target.pass_over()

    def _is_failure(self, call: OutgoingCall, error: BaseException | None) -> bool:
        if isinstance(error, RemoteError):
            return error.remote_reason in _COUNTED
        # The call that this one was made for ends a moment later, or before on a busy machine.
        is_late = call.deadline_at is not None and self._clock.monotonic() >= call.deadline_at
        return error is not None and is_late
