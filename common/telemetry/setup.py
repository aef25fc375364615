"""Setting OpenTelemetry up for a process: ids always, exports where an endpoint is set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import baggage, metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from common import context
from common.telemetry.propagation import BIZ_TRACE_ID

_EXPORT_TIMEOUT_MS = 5000


class StorySpanProcessor(SpanProcessor):
    """Writes the story's id on every recorded span, so that an id finds its spans."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take the id from the call's circumstances, or from what came in as baggage."""
        biz_trace_id = context.current().biz_trace_id or baggage.get_baggage(
            BIZ_TRACE_ID, parent_context
        )
        if biz_trace_id:
            span.set_attribute(BIZ_TRACE_ID, str(biz_trace_id))

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing to add at the end."""


@dataclass(frozen=True)
class Telemetry:
    """What was set up."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider | None

    def shut_down(self) -> None:
        """Export what is left, bounded in time; blocks, so call it off the loop."""
        self.tracer_provider.force_flush(_EXPORT_TIMEOUT_MS)
        self.tracer_provider.shutdown()
        if self.meter_provider is not None:
            self.meter_provider.shutdown(timeout_millis=_EXPORT_TIMEOUT_MS)


def set_up_telemetry(
    process: str,
    *,
    endpoint: str = "",
    sampling_ratio: float = 0.01,
    span_exporter: SpanExporter | None = None,
    metric_reader: MetricReader | None = None,
    install: Callable[[TracerProvider, MeterProvider | None], None] | None = None,
) -> Telemetry:
    """Set up spans and metrics; spans have ids even where none is recorded.

    `endpoint` is an OTLP receiver over gRPC, empty for none. An exporter or reader given takes its
    place, for tests. `install` makes the providers the process's own (once, unless replaced).
    """
    resource = Resource.create({"service.name": process, "service.namespace": "paymesh"})
    tracers = TracerProvider(
        resource=resource, sampler=ParentBased(TraceIdRatioBased(sampling_ratio))
    )
    tracers.add_span_processor(StorySpanProcessor())
    if span_exporter is None and endpoint:
        span_exporter = OTLPSpanExporter(endpoint=endpoint, insecure=_is_plain(endpoint))
    if span_exporter is not None:
        tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    if metric_reader is None and endpoint:
        metric_reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=endpoint, insecure=_is_plain(endpoint))
        )
    meters = None
    if metric_reader is not None:
        meters = MeterProvider(resource=resource, metric_readers=[metric_reader])
    (install or _install)(tracers, meters)
    return Telemetry(tracers, meters)


def _install(tracers: TracerProvider, meters: MeterProvider | None) -> None:
    trace.set_tracer_provider(tracers)
    if meters is not None:
        metrics.set_meter_provider(meters)


def _is_plain(endpoint: str) -> bool:
    return not endpoint.startswith("https://")
