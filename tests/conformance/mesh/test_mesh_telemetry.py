"""Spans and figures of calls: joined across processes, labelled by the story, lean."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from paymesh.mesh.v1 import EchoRequest

from common.context import bound
from common.errors import RemoteError
from tests.conformance.mesh.mesh_kit import STORY, Mesh
from tests.conformance.mesh.probe import SERVICE


class Recorded:
    """What telemetry was told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.calls: list[tuple[str, str, str, str]] = []

    def observe(self, side: str, path: str, peer: str, reason: str, seconds: float) -> None:
        """Note a call."""
        assert seconds >= 0
        self.calls.append((side, path, peer, reason))

    def spans(self) -> dict[SpanKind, ReadableSpan]:
        """Return the finished spans by kind."""
        return {span.kind: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Recorded:
    """An empty record."""
    return Recorded()


@pytest.fixture
async def mesh(way: str, recorded: Recorded) -> AsyncIterator[Mesh]:
    """A mesh that tells telemetry."""
    mesh = await Mesh.start(way, tracer=recorded.tracer, observe=recorded.observe)
    yield mesh
    await mesh.stop()


async def test_recorded_call_has_a_span_on_either_side(mesh: Mesh, recorded: Recorded) -> None:
    with recorded.tracer.start_as_current_span("outer") as outer, bound(STORY):
        await mesh.method("Echo")(EchoRequest())
    spans = recorded.spans()
    client, server = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert client.parent == outer.get_span_context()
    assert server.parent is not None
    assert client.context is not None
    assert server.context is not None
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == outer.get_span_context().trace_id
    for span in (client, server):
        assert span.name == f"{SERVICE}/Echo"
        assert span.attributes is not None
        assert span.attributes["rpc.system"] == "grpc"
        assert span.attributes["rpc.service"] == SERVICE
        assert span.attributes["rpc.method"] == "Echo"
        assert span.attributes["rpc.grpc.status_code"] == 0
        assert span.attributes["biz_trace_id"] == "btr_1"


async def test_failed_call_says_why_in_its_spans(mesh: Mesh, recorded: Recorded) -> None:
    with recorded.tracer.start_as_current_span("outer"), pytest.raises(RemoteError):
        await mesh.method("Refuse")(EchoRequest())
    spans = recorded.spans()
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        attributes = spans[kind].attributes
        assert attributes is not None
        assert attributes["rpc.grpc.status_code"] == 5
        assert attributes["error.type"] == "NOT_FOUND"
        assert spans[kind].status.status_code is StatusCode.ERROR


async def test_call_outside_of_a_trace_records_nothing(mesh: Mesh, recorded: Recorded) -> None:
    await mesh.method("Echo")(EchoRequest())
    assert not recorded.spans()


async def test_call_in_a_trace_that_is_not_recorded_records_nothing(
    mesh: Mesh, recorded: Recorded
) -> None:
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    span = tracer.start_span("unsampled")
    with trace.use_span(span):
        await mesh.method("Echo")(EchoRequest())
    assert not recorded.spans()


async def test_calls_are_counted_on_both_sides(mesh: Mesh, recorded: Recorded) -> None:
    await mesh.method("Echo")(EchoRequest())
    with pytest.raises(RemoteError):
        await mesh.method("Refuse")(EchoRequest())
    assert sorted(recorded.calls) == [
        ("client", f"/{SERVICE}/Echo", "probe", "OK"),
        ("client", f"/{SERVICE}/Refuse", "probe", "NOT_FOUND"),
        ("server", f"/{SERVICE}/Echo", "shop", "OK"),
        ("server", f"/{SERVICE}/Refuse", "shop", "NOT_FOUND"),
    ]
