"""The instruments of the platform: made where they are used, exported once telemetry is set up.

OpenTelemetry's own instruments do nothing until a provider exists, and find it when it comes, so a
module may make its instruments at import. Attributes are few and of few values: never an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation, UpDownCounter

_METER: Final = metrics.get_meter("paymesh")

Attributes = Mapping[str, str | int | bool]


def counter(name: str, description: str, unit: str = "1") -> Counter:
    """Return a counter that only grows: `paymesh.outbox.published`."""
    return _METER.create_counter(name, unit=unit, description=description)


def level(name: str, description: str, unit: str = "1") -> UpDownCounter:
    """Return a counter that goes up and down: calls in flight."""
    return _METER.create_up_down_counter(name, unit=unit, description=description)


def histogram(name: str, description: str, unit: str = "s") -> Histogram:
    """Return a distribution: durations in seconds, sizes in bytes."""
    return _METER.create_histogram(name, unit=unit, description=description)


def gauge(
    name: str,
    description: str,
    read: Callable[[], Iterable[tuple[float, Attributes]]],
    unit: str = "1",
) -> None:
    """Report what `read` returns (value and attributes) whenever metrics are collected."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for value, attributes in read():
            yield Observation(value, attributes)

    _METER.create_observable_gauge(name, callbacks=[observe], unit=unit, description=description)
