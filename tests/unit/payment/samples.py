"""Payments and refunds to try the domain on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from common.ids import derive_timeless
from common.money import Money
from services.payment.domain.payments import Owner, Payment, PaymentForm, Refund
from services.payment.domain.states import PaymentState, RefundState

AT = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Owner("ten", "LIVE", "mer_shop", "MERCHANT:key_1")


def account_named(owner_id: str, kind: str) -> str:
    """An account's id that can be read: `kind(owner)`."""
    return f"{kind}({owner_id})"


def a_payment(amount_minor: int = 1000, fee_minor: int = 6, **changes: Any) -> Payment:
    """A purchase paid through a channel."""
    values: dict[str, Any] = {
        "id": derive_timeless("pay", "sample"),
        "order_id": derive_timeless("trd", "sample"),
        "owner": OWNER,
        "product": "qr_pay",
        "form": PaymentForm.RECHARGE,
        "state": PaymentState.PENDING,
        "amount": Money("USD", amount_minor),
        "user_id": "usr_buyer",
        "card_id": "",
        "bank_code": "",
        "order_type": "purchase",
        "biz_trace_id": "biz_1",
        "created_at": AT,
        "expires_at": AT,
        "channel": "alipay",
        "fee_minor": fee_minor,
        "fee_returned_on_refund": True,
    }
    return Payment(**(values | changes))


def a_refund(amount_minor: int = 1000, fee_minor: int = 6, **changes: Any) -> Refund:
    """A refund of that payment, held on the merchant's pending account."""
    values: dict[str, Any] = {
        "id": derive_timeless("rfd", "sample"),
        "payment_id": derive_timeless("pay", "sample"),
        "order_id": derive_timeless("trd", "sample"),
        "owner": OWNER,
        "state": RefundState.HELD,
        "amount": Money("USD", amount_minor),
        "fee_returned_minor": fee_minor,
        "biz_trace_id": "biz_1",
        "created_at": AT,
        "source_kind": "merchant_pending",
    }
    return Refund(**(values | changes))
