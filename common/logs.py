"""Log lines: one JSON object each, on standard output, with the call's circumstances in every one.

Lines of libraries that use `logging` go the same way. Secrets and card numbers are taken out of
every line, wherever they stand in it: a log is read by many.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import orjson
import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from common import context

serving: ContextVar[str] = ContextVar("paymesh_serving", default="")
"""Name of the service whose code runs; set by the host's middleware and for background tasks."""

REDACTED: Final = "[redacted]"
_SECRET_NAME: Final = re.compile(
    r"(password|passwd|secret|authorization|cookie|private_?key|api_?key|principal_?key"
    r"|card_?(number|no)$|^pan$|cvv|cvc|track_?2|signature$|^token$|access_?token|_token$)",
    re.IGNORECASE,
)
# Ends in "token" or the like, and is none.
_PUBLIC_NAMES: Final = frozenset({"page_token", "next_page_token"})
# 13 to 19 digits, perhaps in groups, as the networks issue them (first digit 2 to 6).
_CARD_LIKE: Final = re.compile(r"(?<![\w.])[2-6](?:[ -]?\d){12,18}(?![\w.])")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL
)
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_DEPTH_MAX: Final = 6


def set_up_logs(
    process: str, *, level: str = "INFO", as_json: bool = True, stream: TextIO | None = None
) -> None:
    """Let all lines of this process go to `stream` (standard output when None)."""
    target = stream or sys.stdout
    render: list[Processor]
    if as_json:
        render = [
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(serializer=_dump),
        ]
    else:
        # Colours are for eyes, and eyes are at a terminal.
        render = [
            structlog.processors.format_exc_info,
            redact,
            structlog.dev.ConsoleRenderer(colors=target.isatty()),
        ]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            _Circumstances(process),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(level)
    # Each says at INFO what is a span or a metric here; the broker's clients warn of what their
    # callers ask for (a closed channel) and what relay and consumers say themselves.
    for name, least in (
        ("aio_pika", logging.CRITICAL),
        ("aiormq", logging.CRITICAL),
        ("asyncio", logging.WARNING),
        ("httpx", logging.WARNING),
    ):
        logging.getLogger(name).setLevel(least)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger; values are keywords: `log.info("paid", payment_id=…)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(source=name)
    return logger


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Take secrets and card numbers out of a line."""
    return {name: _redact_value(name, value, 0) for name, value in event.items()}


def redact_text(text: str) -> str:
    """Take secrets and card numbers out of a text."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text)
    if "-----BEGIN" in text:
        text = _PEM.sub(REDACTED, text)
    if "earer " in text or "asic " in text:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return _CARD_LIKE.sub(_mask_card, text)


def _redact_value(name: str, value: Any, depth: int) -> Any:
    if _SECRET_NAME.search(name) and name not in _PUBLIC_NAMES and value not in (None, "", b""):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return f"[{len(value)} bytes]"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        masked = redact_text(str(value))
        return value if masked == str(value) else masked
    if depth >= _DEPTH_MAX:
        return "…"
    if isinstance(value, MutableMapping):
        return {str(key): _redact_value(str(key), one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value("", one, depth + 1) for one in value]
    return redact_text(repr(value))


def _mask_card(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match[0])
    return f"****{digits[-4:]}" if _passes_luhn(digits) else match[0]


def _passes_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


class _Circumstances:
    """Adds to every line who acts, in which story and span, and whose code speaks."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = self._process
        service = serving.get()
        if service:
            event.setdefault("service", service)
        call = context.current()
        if call.biz_trace_id:
            event.setdefault("biz_trace_id", call.biz_trace_id)
        if call.principal.merchant_id:
            event.setdefault("merchant_id", call.principal.merchant_id)
        if call.principal.actor_id:
            event.setdefault("mode", str(call.principal.mode))
        if call.caller:
            event.setdefault("caller", call.caller)
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = f"{span.trace_id:032x}"
            event["span_id"] = f"{span.span_id:016x}"
        return event


class _ToStructlog(logging.Handler):
    """Hands lines of `logging` over."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger(source=record.name).log(
                record.levelno, record.getMessage(), exc_info=record.exc_info or None
            )
        except Exception:  # noqa: BLE001 - a log line must not fail what it tells of
            self.handleError(record)


def _dump(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
