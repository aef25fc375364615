"""Every line says whose it is, and none tells a secret."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from common import context
from common.context import ActorType, CallContext, Mode, Principal
from common.logs import get_logger, redact_text, serving, set_up_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    set_up_logs("test", level="INFO", stream=out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_carries_the_calls_circumstances(stream: io.StringIO) -> None:
    principal = Principal(
        mode=Mode.TEST, merchant_id="mer_1", actor_type=ActorType.MERCHANT, actor_id="key_1"
    )
    span = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    token = serving.set("trade")
    with (
        context.bound(CallContext(principal=principal, biz_trace_id="biz_1", caller="edge")),
        trace.use_span(NonRecordingSpan(span)),
    ):
        get_logger("here").info("paid", payment_id="pay_1", amount_minor=1200)
    serving.reset(token)
    (line,) = lines(stream)
    assert line.pop("at")
    assert line == {
        "source": "here",
        "event": "paid",
        "payment_id": "pay_1",
        "amount_minor": 1200,
        "level": "info",
        "process": "test",
        "service": "trade",
        "biz_trace_id": "biz_1",
        "merchant_id": "mer_1",
        "mode": "TEST",
        "caller": "edge",
        "trace_id": f"{1:032x}",
        "span_id": f"{2:016x}",
    }


def test_lines_of_libraries_go_the_same_way(stream: io.StringIO) -> None:
    try:
        raise ValueError("postgresql://u:hush@h/d")
    except ValueError:
        logging.getLogger("library").exception("failed %s", "so")
    logging.getLogger("library").debug("not shown")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["process"]) == ("failed so", "error", "test")
    assert "ValueError" in str(line["exception"])
    assert "hush" not in stream.getvalue()


def test_secrets_are_taken_out_wherever_they_stand(stream: io.StringIO) -> None:
    get_logger("x").info(
        "card 4111 1111 1111 1111",
        password="hush-1",
        headers={"Authorization": "hush-2", "x": ["Bearer hush-3-abcdef"]},
        card_number="hush-4",
        pan=4111111111111111,
        number=5555555555554444,
        pem="-----BEGIN PRIVATE KEY-----\nhush-5\n-----END PRIVATE KEY-----",
        blob=b"hush-6",
        page_token="kept",
        epoch_ms=1767312000000,
        odd=object(),
    )
    (line,) = lines(stream)
    text = stream.getvalue()
    assert "hush" not in text
    assert "4111111111111111" not in text
    assert line["event"] == "card ****1111"
    assert line["number"] == "****4444"
    assert line["page_token"] == "kept"
    assert line["epoch_ms"] == 1767312000000


@pytest.mark.parametrize(
    "text",
    ["pay_01abcdefghijk4111111111111", "4111111111111112", "2026-01-02", "1.4111111111111111"],
)
def test_what_is_no_card_number_is_kept(text: str) -> None:
    assert redact_text(text) == text
