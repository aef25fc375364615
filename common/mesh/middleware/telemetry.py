"""Spans and figures of every call, lean: an unsampled call pays about a microsecond.

Spans follow OpenTelemetry's semantic conventions for RPC and carry `biz_trace_id`. Whether a trace
is recorded is decided where it begins, and read here from `traceparent`; a call that comes without
one begins a trace in a share of cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer

from common.clock import Clock
from common.errors import PaymeshError, RemoteError
from common.mesh.incoming import IncomingCall, IncomingMiddleware
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware
from common.reasons import codes_of
from common.telemetry.propagation import TRACEPARENT, format_traceparent, parse_traceparent

RPC_SYSTEM: Final = "grpc"


class Observe(Protocol):
    """Counts one call that has ended."""

    def __call__(self, side: str, path: str, peer: str, reason: str, seconds: float) -> None:
        """Count: `side` is `server` or `client`, `reason` is `OK` or an error's reason."""
        ...


def _attributes(path: str, biz_trace_id: str, peer_key: str, peer: str) -> dict[str, str]:
    service, _, method = path.lstrip("/").partition("/")
    return {
        "rpc.system": RPC_SYSTEM,
        "rpc.service": service,
        "rpc.method": method,
        "biz_trace_id": biz_trace_id,
        peer_key: peer,
    }


def _end(span: Span, code: int, reason: str, error: BaseException | None) -> None:
    span.set_attribute("rpc.grpc.status_code", code)
    if error is not None:
        span.set_attribute("error.type", reason)
        span.set_status(Status(StatusCode.ERROR, reason))
    span.end()


class IncomingTelemetry(IncomingMiddleware):
    """Server spans and figures."""

    def __init__(
        self,
        clock: Clock,
        tracer: Tracer,
        observe: Observe | None,
        root_ratio: float,
        chance: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._tracer = tracer
        self._observe = observe
        self._root_ratio = root_ratio
        self._chance = chance

    def before(self, call: IncomingCall) -> None:
        """Begin a span when the trace is recorded."""
        header = call.headers.get(TRACEPARENT)
        if header is not None:
            self._join(call, str(header))
        elif self._root_ratio and self._chance() < self._root_ratio:
            self._start(call, otel_context.Context())

    def _join(self, call: IncomingCall, header: str) -> None:
        parent = parse_traceparent(header)
        if parent is None:
            return
        context = trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context())
        if parent.trace_flags.sampled:
            self._start(call, context)
        else:
            otel_context.attach(context)

    def _start(self, call: IncomingCall, parent: otel_context.Context) -> None:
        path = call.method.path
        span = self._tracer.start_span(path.lstrip("/"), parent, SpanKind.SERVER)
        call.span = span
        # Never detached: the call has a task of its own, and the binding ends with it.
        otel_context.attach(trace.set_span_in_context(span, parent))

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Count the call and end its span."""
        status = call.status
        reason = "OK" if status is None else status.reason or status.code.name
        if self._observe is not None:
            seconds = self._clock.monotonic() - call.started_at
            self._observe("server", call.method.path, call.caller or "", reason, seconds)
        span = call.span
        if span is not None:
            story = "" if call.context is None else call.context.biz_trace_id
            span.set_attributes(
                _attributes(call.method.path, story, "paymesh.caller", call.caller or "")
            )
            _end(span, 0 if status is None else status.code.value[0], reason, error)


class OutgoingTelemetry(OutgoingMiddleware):
    """Client spans and figures, and the `traceparent` of calls."""

    def __init__(self, clock: Clock, tracer: Tracer, observe: Observe | None) -> None:
        self._clock = clock
        self._tracer = tracer
        self._observe = observe

    def before(self, call: OutgoingCall) -> None:
        """Begin a span when the current one is recorded; pass the trace on."""
        current = trace.get_current_span()
        if current is trace.INVALID_SPAN:
            return
        if current.is_recording():
            call.span = current = self._tracer.start_span(
                call.path.lstrip("/"),
                kind=SpanKind.CLIENT,
                attributes=_attributes(
                    call.path, call.context.biz_trace_id, "server.address", call.target
                ),
            )
        context = current.get_span_context()
        if context.is_valid:
            call.metadata.append((TRACEPARENT, format_traceparent(context)))

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Count the call and end its span."""
        if self._observe is None and call.span is None:
            return
        reason = "OK"
        if isinstance(error, RemoteError):
            reason = error.remote_reason
        elif isinstance(error, PaymeshError):
            reason = error.reason
        elif error is not None:
            reason = "CANCELLED"
        if self._observe is not None:
            seconds = self._clock.monotonic() - call.started_at
            self._observe("client", call.path, call.target, reason, seconds)
        if call.span is not None:
            code = 0 if error is None else codes_of(reason).grpc.value[0]
            _end(call.span, code, reason, error)
