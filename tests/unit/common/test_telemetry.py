"""Spans carry the story, sampling holds, and figures come out."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from common import context
from common.backoff import Backoff
from common.context import CallContext
from common.telemetry import propagation
from common.telemetry.setup import set_up_telemetry


def test_recorded_spans_carry_the_story_and_the_process() -> None:
    exporter = InMemorySpanExporter()
    providers: list[TracerProvider] = []
    telemetry = set_up_telemetry(
        "trade",
        sampling_ratio=1.0,
        span_exporter=exporter,
        install=lambda tracers, _: providers.append(tracers),
    )
    tracer = providers[0].get_tracer("test")
    with context.bound(CallContext(biz_trace_id="biz_1")), tracer.start_as_current_span("one"):
        pass
    carried = propagation.extract({"baggage": "biz_trace_id=biz_2"})
    with tracer.start_as_current_span("two", context=carried.as_context()):
        pass
    telemetry.shut_down()
    one, two = exporter.get_finished_spans()
    assert one.attributes is not None
    assert two.attributes is not None
    assert (one.attributes["biz_trace_id"], two.attributes["biz_trace_id"]) == ("biz_1", "biz_2")
    assert one.resource.attributes["service.name"] == "trade"


def test_an_incoming_decision_is_kept_and_unsampled_spans_have_ids() -> None:
    exporter = InMemorySpanExporter()
    providers: list[TracerProvider] = []
    telemetry = set_up_telemetry(
        "trade",
        sampling_ratio=0.0,
        span_exporter=exporter,
        install=lambda tracers, _: providers.append(tracers),
    )
    tracer = providers[0].get_tracer("test")
    with tracer.start_as_current_span("unsampled") as span:
        assert span.get_span_context().is_valid
        assert not span.get_span_context().trace_flags.sampled
        carried = propagation.extract({"traceparent": propagation.current_traceparent()})
        assert carried.span_context is not None
        assert not carried.span_context.trace_flags.sampled
    sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    carried = propagation.extract({"traceparent": sampled})
    with tracer.start_as_current_span("sampled", context=carried.as_context()):
        pass
    telemetry.shut_down()
    assert [span.name for span in exporter.get_finished_spans()] == ["sampled"]
    assert not trace.get_current_span().get_span_context().is_valid


def test_figures_come_out_by_their_names() -> None:
    reader = InMemoryMetricReader()
    meters: list[MeterProvider] = []
    telemetry = set_up_telemetry(
        "trade",
        metric_reader=reader,
        install=lambda _, made: meters.append(made) if made else None,
    )
    meters[0].get_meter("test").create_counter("paymesh.test").add(3, {"kind": "a"})
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "paymesh.test"
    telemetry.shut_down()


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    plain = Backoff(first_seconds=1, longest_seconds=10, factor=2, spread=0)
    assert [plain.pause(n) for n in (0, 1, 2, 3, 4, 5, 10**9)] == [1, 1, 2, 4, 8, 10, 10]
    spread = Backoff(first_seconds=10, longest_seconds=10, spread=0.5)
    pauses = {spread.pause(1) for _ in range(50)}
    assert len(pauses) > 1
    assert all(5 <= pause <= 15 for pause in pauses)
