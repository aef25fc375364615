"""A breaker for each channel: who does not answer gets no new payments for a while.

Only new payments are refused: another channel can carry them, and refused here they have surely
not moved money. Questions and closes always pass, because unknown outcomes are found out by them
alone, they move no money, and the first one that is answered shows that the channel is back.
Refunds pass, because no other channel can carry them; they stay open until they are through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from weakref import WeakSet

from common.breaker import Breaker, BreakerState
from common.clock import Clock
from common.telemetry import metrics
from common.telemetry.metrics import Attributes
from services.channel.guard import DEADLINE, ChannelCall
from services.channel.results import (
    ChannelError,
    ChannelOutcomeUnknownError,
    ChannelResult,
    ChannelUnavailableError,
    Verb,
)

BREAKER: Final = "breaker"
"""What a refusal names as its cause."""

_LEVELS: Final = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
_REFUSED: Final = metrics.counter(
    "paymesh.channel.breaker.refused", "Payments that an open breaker refused, by channel"
)


class Breakers:
    """Counts a channel's failures in a row, whatever the verb; opens at the bound."""

    def __init__(self, clock: Clock, failures_max: int, open_seconds: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._breakers: dict[str, Breaker] = {}
        _IN_USE.add(self)

    def state_of(self, channel: str) -> BreakerState:
        """Return how a channel's breaker stands."""
        breaker = self._breakers.get(channel)
        return BreakerState.CLOSED if breaker is None else breaker.state

    def levels(self) -> Iterator[tuple[float, Attributes]]:
        """Return each channel's level for the metric `paymesh.channel.breaker`."""
        for channel, breaker in self._breakers.items():
            yield _LEVELS[breaker.state], {"channel": channel}

    def before(self, call: ChannelCall) -> None:
        """Refuse a new payment while the channel's breaker is open."""
        breaker = self._breakers.get(call.channel)
        if breaker is None or call.verb is not Verb.PAY:
            return
        wait = breaker.admit()
        if wait:
            _REFUSED.add(1, {"channel": call.channel})
            raise ChannelUnavailableError(
                channel=call.channel, cause=BREAKER, retry_after_seconds=wait
            )

    def after(
        self, call: ChannelCall, result: ChannelResult | None, error: BaseException | None
    ) -> None:
        """Count a failure, or forget the ones before."""
        if call.verb is Verb.PARSE_CALLBACK:
            return  # the channel called us
        breaker = self._breakers.get(call.channel)
        if _is_failure(error):
            if breaker is None:
                breaker = Breaker(self._clock, self._failures_max, self._open_seconds)
                self._breakers[call.channel] = breaker
            breaker.fail()
        elif breaker is None:
            return
        elif error is None or (isinstance(error, ChannelError) and not _is_deadline(error)):
            breaker.succeed()  # a refusal is an answer, too
        elif call.verb is Verb.PAY:
            breaker.pass_over()


_IN_USE: Final[WeakSet[Breakers]] = WeakSet()
metrics.gauge(
    "paymesh.channel.breaker",
    "How a channel's breaker stands: 0 closed, 0.5 half-open, 1 open",
    lambda: [level for breakers in list(_IN_USE) for level in list(breakers.levels())],
)


def _is_failure(error: BaseException | None) -> bool:
    """Say whether a channel was not reached, or did not say what it did."""
    if isinstance(error, ChannelUnavailableError):
        return not _is_deadline(error)
    return isinstance(error, ChannelOutcomeUnknownError)


def _is_deadline(error: BaseException) -> bool:
    """Say whether the caller had no time left: the channel was not even called."""
    return isinstance(error, ChannelError) and error.metadata.get("cause") == DEADLINE
