"""How a trace and the business story cross a process: W3C `traceparent` and `baggage`.

Written by hand and not by OpenTelemetry's propagators, which cost more than the rest of a call's
middleware together. The principal never travels in baggage: it is signed, and goes its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from common.context import CallContext

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
BIZ_TRACE_ID: Final = "biz_trace_id"
_OWN_MEMBER: Final = f"{BIZ_TRACE_ID}="

_TRACEPARENT_FORM: Final = re.compile(
    r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$"
)
# Longest header that is looked at; W3C asks for 8192 bytes of baggage, ours is one short member.
_HEADER_LENGTH_MAX: Final = 8192
# What RFC 3986 never escapes.
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]*")
_BIZ_TRACE_ID_FORM: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,64}$")


@dataclass(frozen=True, slots=True)
class Carried:
    """What came in from another process."""

    biz_trace_id: str = ""
    """The business order's story; empty where none was named."""

    span_context: SpanContext | None = None
    """The span that called; None where there was none, or none of the right form."""

    def as_context(self) -> otel_context.Context:
        """Return an OpenTelemetry context to start the next span in."""
        context = otel_context.Context()
        if self.span_context is not None:
            context = trace.set_span_in_context(NonRecordingSpan(self.span_context), context)
        if self.biz_trace_id:
            context = baggage.set_baggage(BIZ_TRACE_ID, self.biz_trace_id, context)
        return context


def inject(call: CallContext) -> dict[str, str]:
    """Return the headers that carry the current span and the story of `call`."""
    headers: dict[str, str] = {}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        headers[TRACEPARENT] = format_traceparent(span)
        if span.trace_state:
            headers[TRACESTATE] = span.trace_state.to_header()
    if call.biz_trace_id:
        headers[BAGGAGE] = format_baggage(call.biz_trace_id)
    return headers


def extract(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Carried:
    """Read what another process sent; a malformed header counts as absent."""
    values = headers if isinstance(headers, Mapping) else dict(headers)
    span = parse_traceparent(values.get(TRACEPARENT, ""), values.get(TRACESTATE, ""))
    return Carried(biz_trace_id=read_biz_trace_id(values.get(BAGGAGE, "")), span_context=span)


def current_traceparent() -> str:
    """Return the current span as `traceparent`, for a row or an event; empty outside of spans."""
    span = trace.get_current_span().get_span_context()
    return format_traceparent(span) if span.is_valid else ""


def format_traceparent(span: SpanContext) -> str:
    """Return a span's context as a `traceparent` header."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def parse_traceparent(header: str, state: str = "") -> SpanContext | None:
    """Read a `traceparent` header; None when it has not the form, or all zeroes."""
    match = _TRACEPARENT_FORM.match(header)
    # Version ff is forbidden; version 00 has no further part, later ones may.
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    span = SpanContext(
        trace_id=int(match[2], 16),
        span_id=int(match[3], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[4], 16) & TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state]) if state else None,
    )
    return span if span.is_valid else None


def attach(carried: Carried) -> Token[otel_context.Context]:
    """Make what came in the current context; give the token to `detach` at the end."""
    return otel_context.attach(carried.as_context())


def detach(token: Token[otel_context.Context]) -> None:
    """Return to the context before `attach`."""
    otel_context.detach(token)


def format_baggage(biz_trace_id: str) -> str:
    """Return a `baggage` header that names the story."""
    # Nearly every story's id is an id of ours, in which nothing needs an escape.
    if _UNRESERVED.fullmatch(biz_trace_id) is None:
        biz_trace_id = quote(biz_trace_id, safe="")
    return f"{BIZ_TRACE_ID}={biz_trace_id}"


def read_biz_trace_id(header: str) -> str:
    """Read the story that a `baggage` header names; empty where it names none of the right form."""
    if header.startswith(_OWN_MEMBER):  # as our own processes write it, alone and without escapes
        value = header[len(_OWN_MEMBER) :]
        if _BIZ_TRACE_ID_FORM.fullmatch(value):
            return value
    if not header or len(header) > _HEADER_LENGTH_MAX:
        return ""
    for member in header.split(","):
        name, _, rest = member.partition("=")
        if name.strip() == BIZ_TRACE_ID:
            value = unquote(rest.partition(";")[0].strip())
            return value if _BIZ_TRACE_ID_FORM.fullmatch(value) else ""
    return ""
