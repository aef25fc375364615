"""What is measured around every call of a channel."""

from __future__ import annotations

from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from common.clock import Clock
from common.errors import PaymeshError
from common.telemetry import metrics
from services.channel.guard import ChannelCall
from services.channel.results import ChannelResult

_SECONDS: Final = metrics.histogram("paymesh.channel.seconds", "Duration of calls of channels")
_CALLS: Final = metrics.counter("paymesh.channel.calls", "Calls of channels, by how they ended")
_TRACER: Final = trace.get_tracer("paymesh")


def _ending(result: ChannelResult | None, error: BaseException | None) -> str:
    if error is None:
        return result.state.value if result is not None else "NONE"
    return error.reason if isinstance(error, PaymeshError) else type(error).__name__


class Measured:
    """Counts calls and times them, by channel, verb and ending."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def before(self, call: ChannelCall) -> None:
        """Nothing: the call knows when it began."""

    def after(
        self, call: ChannelCall, result: ChannelResult | None, error: BaseException | None
    ) -> None:
        """Note how it ended."""
        attributes = {"channel": call.channel, "verb": call.verb.value}
        _SECONDS.record(self._clock.monotonic() - call.started_at, attributes)
        _CALLS.add(1, {**attributes, "ending": _ending(result, error)})


class Traced:
    """A client span around each call; our reference is its only detail of the payment."""

    def __init__(self) -> None:
        self._spans: dict[int, Span] = {}

    def before(self, call: ChannelCall) -> None:
        """Begin the span."""
        span = _TRACER.start_span(f"{call.adapter} {call.verb.value}", kind=SpanKind.CLIENT)
        span.set_attribute("paymesh.channel", call.channel)
        span.set_attribute("paymesh.reference", call.reference)
        self._spans[id(call)] = span

    def after(
        self, call: ChannelCall, result: ChannelResult | None, error: BaseException | None
    ) -> None:
        """End the span."""
        span = self._spans.pop(id(call))
        span.set_attribute("paymesh.ending", _ending(result, error))
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end()
