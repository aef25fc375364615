"""Traces and stories cross processes by W3C's headers; nonsense in them counts as nothing."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from common.context import CallContext
from common.telemetry import propagation

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_injecting_and_extracting_gives_the_same_back() -> None:
    span = SpanContext(
        trace_id=0xAF7651916CD43DD8448EB211C80319C,
        span_id=0xB7AD6B7169203331,
        is_remote=False,
        trace_flags=TraceFlags(1),
    )
    with trace.use_span(NonRecordingSpan(span)):
        headers = propagation.inject(CallContext(biz_trace_id="biz_01"))
    assert headers == {"traceparent": TRACEPARENT, "baggage": "biz_trace_id=biz_01"}
    carried = propagation.extract(headers)
    assert carried.biz_trace_id == "biz_01"
    assert carried.span_context is not None
    assert carried.span_context.trace_id == span.trace_id
    assert carried.span_context.is_remote
    context = carried.as_context()
    assert baggage.get_baggage("biz_trace_id", context) == "biz_01"
    assert trace.get_current_span(context).get_span_context() == carried.span_context


def test_injecting_outside_of_any_span_or_story_says_nothing() -> None:
    assert propagation.inject(CallContext()) == {}
    assert propagation.current_traceparent() == ""


def test_extracting_finds_the_story_among_other_members() -> None:
    header = "userId=alice, biz_trace_id = biz_01;property=1 ,other=2"
    assert propagation.extract({"baggage": header}).biz_trace_id == "biz_01"
    assert propagation.extract([("baggage", header)]).biz_trace_id == "biz_01"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        TRACEPARENT + "-extra",
        TRACEPARENT.upper(),
        "00-" + "g" * 32 + "-b7ad6b7169203331-01",
    ],
)
def test_extracting_a_malformed_traceparent_counts_as_none(header: str) -> None:
    assert propagation.extract({"traceparent": header}).span_context is None


def test_extracting_a_later_version_reads_the_known_part() -> None:
    later = "01" + TRACEPARENT[2:] + "-what-will-be"
    assert propagation.extract({"traceparent": later}).span_context is not None


@pytest.mark.parametrize(
    "header",
    ["biz_trace_id=", "biz_trace_id=a%0Ab", "biz_trace_id=" + "x" * 65, "x" * 9000, ",,=,;"],
)
def test_extracting_a_malformed_story_counts_as_none(header: str) -> None:
    assert propagation.extract({"baggage": header}).biz_trace_id == ""
