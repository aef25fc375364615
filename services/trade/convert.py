"""Domain ↔ contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.payment.v1 import PaymentRefund, PaymentRefundState
from paymesh.trade.v1 import (
    FEE_RETURN_POLICY_KEEP,
    FEE_RETURN_POLICY_RETURN,
    CreateOrderRequest,
    FeeSnapshot,
)
from paymesh.trade.v1 import Order as OrderMessage
from paymesh.trade.v1 import OrderState as OrderStateMessage
from paymesh.trade.v1 import Refund as RefundMessage
from paymesh.trade.v1 import RefundState as RefundStateMessage
from paymesh.type.v1 import Money as MoneyMessage

from common.money import Money
from services.trade.domain import NewOrder, Order, OrderState, Refund, RefundNews, RefundState

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_PER_DAY: Final = 86_400
_ORDER_STATES: Final = {
    state: OrderStateMessage.Value(f"ORDER_STATE_{state.value}") for state in OrderState
}
_REFUND_STATES: Final = {
    state: RefundStateMessage.Value(f"REFUND_STATE_{state.value}") for state in RefundState
}
_NEWS: Final = {
    PaymentRefundState.PAYMENT_REFUND_STATE_SUCCEEDED: RefundState.COMPLETED,
    PaymentRefundState.PAYMENT_REFUND_STATE_FAILED: RefundState.FAILED,
    PaymentRefundState.PAYMENT_REFUND_STATE_WAITING_FUNDS: RefundState.WAITING_FUNDS,
}


def new_order_from_proto(request: CreateOrderRequest) -> NewOrder:
    """Return an order as it is asked for."""
    return NewOrder(
        request_id=request.request_id,
        merchant_order_no=request.merchant_order_no,
        type=request.type,
        currency_code=request.amount.currency_code,
        amount_minor=request.amount.amount_minor,
        user_id=request.user_id,
        subject=request.subject,
        expires_in_seconds=request.expires_in_seconds,
        metadata=dict(request.metadata),
        biz_trace_id=request.biz_trace_id,
    )


def order_to_proto(order: Order) -> OrderMessage:
    """Return an order as callers see it."""
    return OrderMessage(
        id=order.id,
        merchant_id=order.merchant_id,
        merchant_order_no=order.merchant_order_no,
        type=order.type,
        state=_ORDER_STATES[order.state],
        amount=MoneyMessage(currency_code=order.currency_code, amount_minor=order.amount_minor),
        fee=FeeSnapshot(
            fee_minor=order.fee_minor,
            rate_ppm=order.fee_rate_ppm,
            return_policy=(
                FEE_RETURN_POLICY_RETURN if order.fee_returned_on_refund else FEE_RETURN_POLICY_KEEP
            ),
        ),
        user_id=order.user_id,
        subject=order.subject,
        payment_id=order.payment_id,
        refunded_minor=order.refunded_minor,
        biz_trace_id=order.biz_trace_id,
        metadata=order.metadata,
        expires_at=_timestamp(order.expires_at),
        created_at=_timestamp(order.created_at),
        updated_at=_timestamp(order.updated_at),
        version=order.version,
        business_date=order.business_date,
    )


def refund_to_proto(refund: Refund) -> RefundMessage:
    """Return a refund as callers see it."""
    return RefundMessage(
        id=refund.id,
        order_id=refund.order_id,
        merchant_refund_no=refund.merchant_refund_no,
        state=_REFUND_STATES[refund.state],
        amount=MoneyMessage(currency_code=refund.currency_code, amount_minor=refund.amount_minor),
        fee_returned_minor=refund.fee_returned_minor,
        reason=refund.reason,
        failure_reason=refund.failure_reason,
        biz_trace_id=refund.biz_trace_id,
        created_at=_timestamp(refund.created_at),
        updated_at=_timestamp(refund.updated_at),
        version=refund.version,
    )


def refund_news(message: PaymentRefund, cause: str) -> RefundNews | None:
    """Return what payment says of a refund; None while it works on it."""
    state = _NEWS.get(message.state)
    if state is None:
        return None
    return RefundNews(
        message.id,
        state,
        Money(message.amount.currency_code, message.amount.amount_minor),
        # Held back until it is given: a waiting or failed refund returned nothing.
        fee_returned_minor=(message.fee_returned_minor if state is RefundState.COMPLETED else 0),
        failure_reason=message.failure.reason if state is RefundState.FAILED else "",
        business_date=message.business_date,
        cause=cause,
    )


def _timestamp(at: datetime) -> Timestamp:
    # Three to an order: `FromDatetime` takes as long as the rest of it.
    since = at - _EPOCH
    return Timestamp(
        seconds=since.days * _SECONDS_PER_DAY + since.seconds, nanos=since.microseconds * 1000
    )
