"""Nouns of events as JSON: the same as protobuf's own library says, but for three things.

Amounts are numbers, enums lose their prefix, and enums that were never sent are left out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from paymesh.payment.v1 import (
    Payment,
    PaymentConflicted,
    PaymentFailed,
    PaymentReturned,
    PaymentUnclaimed,
)
from paymesh.trade.v1 import Order, OrderState, Refund, RefundCompleted

from common.context import ActorType, Mode, Principal
from common.events.event import Event
from services.notify.convert import render
from services.notify.domain.deliveries import WEBHOOK_TYPES
from services.notify.events import webhook_of

_NEVER_SENT = {("state", "UNSPECIFIED"), ("return_policy", "UNSPECIFIED")}
_INT64 = {"amount_minor", "fee_minor", "rate_ppm", "refunded_minor", "version"}


def _as_ours(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        inner = {
            key: _as_ours(one, "" if name == "metadata" else key) for key, one in value.items()
        }
        return {key: one for key, one in inner.items() if (key, str(one)) not in _NEVER_SENT}
    if isinstance(value, str):
        if name in _INT64:
            return int(value)
        for prefix in ("ORDER_STATE_", "FEE_RETURN_POLICY_"):
            if name in ("state", "return_policy"):
                value = value.removeprefix(prefix)
    return value


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_amounts = st.integers(-(2**63), 2**63 - 1)


@given(
    texts=st.tuples(_texts, _texts, _texts),
    state=st.integers(0, 5),
    policy=st.integers(0, 2),
    amounts=st.tuples(_amounts, _amounts, _amounts),
    metadata=st.dictionaries(_texts, _texts, max_size=3),
    created_at=st.none() | st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1)),  # noqa: DTZ001 - UTC below
    has_parts=st.booleans(),
)
def test_rendering_agrees_with_the_library(
    texts: tuple[str, str, str],
    state: int,
    policy: int,
    amounts: tuple[int, int, int],
    metadata: dict[str, str],
    created_at: datetime | None,
    has_parts: bool,
) -> None:
    order = Order(id=texts[0], subject=texts[1], refunded_minor=amounts[0], metadata=metadata)
    order.state = OrderState.Name(state)  # type: ignore[assignment]
    if has_parts:
        order.amount.currency_code, order.amount.amount_minor = texts[2], amounts[1]
        order.fee.fee_minor = amounts[2]
        order.fee.return_policy = policy  # type: ignore[assignment]
    if created_at is not None:
        order.created_at.FromDatetime(created_at.replace(tzinfo=UTC))
    theirs = MessageToDict(
        order, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert render(order) == _as_ours(theirs)


def test_rendering_a_newer_enum_value_keeps_its_number() -> None:
    order = Order.FromString(Order(id="trd_1").SerializeToString() + b"\x28\x63")
    assert render(order)["state"] == "UNKNOWN_99"


def _event(kind: str, payload: bytes) -> Event:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    return Event(
        event_id="evt_01k8zzzzzz00aaaaaaaaaaaaaa",
        type=kind,
        aggregate_id="x",
        aggregate_version=1,
        payload=payload,
        principal=Principal(
            merchant_id="mer_1", mode=Mode.TEST, actor_type=ActorType.SERVICE, actor_id="trade"
        ),
        occurred_at=at,
        biz_trace_id="biz_1",
        recorded_at=at,
    )


def test_telling_of_a_refund_goes_to_the_merchant_of_its_event() -> None:
    refund = Refund(id="rfd_1", order_id="trd_1", state=2)
    body = RefundCompleted(refund=refund, order=Order(id="trd_1")).SerializeToString()
    webhook = webhook_of(_event("trade.refund.completed.v1", body))
    assert webhook is not None
    assert (webhook.owner.merchant_id, webhook.owner.mode) == ("mer_1", "TEST")
    assert (webhook.type, webhook.subject_id) == ("refund.completed", "rfd_1")
    assert webhook.biz_trace_id == "biz_1"
    assert '"timestamp":"2026-01-02T03:04:05.678Z"' in webhook.body
    assert '"biz_trace_id":"biz_1"' in webhook.body


def test_telling_of_a_payment_goes_to_its_merchant_under_one_id() -> None:
    payment = Payment(id="pay_1", merchant_id="mer_2", state=8)
    payment.failure.decline_code = "CARD_EXPIRED"
    event = _event("payment.payment.failed.v1", PaymentFailed(payment=payment).SerializeToString())
    first, again = webhook_of(event), webhook_of(event)
    assert first is not None
    assert first == again
    assert (first.owner.merchant_id, first.type) == ("mer_2", "payment.failed")
    assert '"decline_code":"CARD_EXPIRED"' in first.body


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("conflicted", PaymentConflicted),
        ("returned", PaymentReturned),
        ("unclaimed", PaymentUnclaimed),
    ],
)
def test_merchants_hear_what_became_of_money_that_paid_nothing(end: str, message: Any) -> None:
    payment = Payment(id="pay_1", merchant_id="mer_2", order_id="trd_1")
    payment.received.currency_code, payment.received.amount_minor = "EUR", 900
    body = message(payment=payment).SerializeToString()
    webhook = webhook_of(_event(f"payment.payment.{end}.v1", body))
    assert webhook is not None
    assert (webhook.owner.merchant_id, webhook.type) == ("mer_2", f"payment.{end}")
    assert webhook.type in WEBHOOK_TYPES
    assert '"received":{"currency_code":"EUR","amount_minor":900}' in webhook.body


def test_other_events_become_no_webhook() -> None:
    assert webhook_of(_event("trade.order.created.v1", b"")) is None
