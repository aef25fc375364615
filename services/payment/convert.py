"""Domain ↔ contract."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.channel.v1 import ChannelRefund, ChannelRefundState, Charge, ChargeState
from paymesh.payment.v1 import (
    ExceptionState as ExceptionStateMessage,
)
from paymesh.payment.v1 import Failure as FailureMessage
from paymesh.payment.v1 import NextAction as NextActionMessage
from paymesh.payment.v1 import Payment as PaymentMessage
from paymesh.payment.v1 import PaymentException as ExceptionMessage
from paymesh.payment.v1 import (
    PaymentForm,
    PaymentRefund,
    PaymentRefundState,
    PaymentState,
    Redirect,
    ShowQr,
    Wait,
)
from paymesh.trade.v1 import FeeReturnPolicy, OrderState
from paymesh.trade.v1 import Order as OrderMessage
from paymesh.type.v1 import Money as MoneyMessage

from common.money import Money
from services.payment.domain.exceptions import PaymentException
from services.payment.domain.payments import (
    ChargeNews,
    Failure,
    GiveBackNews,
    NextAction,
    Order,
    Payment,
    Refund,
)

# A waiting payer's program asks again after so long; the janitor's own questions are independent.
_WAIT_SECONDS = 2


def payment_to_proto(payment: Payment, updated_at: datetime | None = None) -> PaymentMessage:
    """Return a payment as callers see it."""
    message = PaymentMessage(
        id=payment.id,
        order_id=payment.order_id,
        merchant_id=payment.owner.merchant_id,
        product=payment.product,
        form=PaymentForm.Value(f"PAYMENT_FORM_{payment.form}"),
        state=PaymentState.Value(f"PAYMENT_STATE_{payment.state}"),
        amount=money_to_proto(payment.amount),
        channel=payment.channel,
        channel_reason=payment.channel_reason,
        refunded_minor=payment.refunded_minor,
        refunding_minor=payment.refunding_minor,
        biz_trace_id=payment.biz_trace_id,
        created_at=_timestamp(payment.created_at),
        updated_at=_timestamp(updated_at or payment.updated_at or payment.created_at),
        version=payment.version,
        business_date=payment.business_date,
        user_id=payment.user_id,
        fee_minor=payment.fee_minor if payment.state == "SUCCEEDED" else 0,
    )
    if payment.next_action is not None and payment.state == "REQUIRES_ACTION":
        message.next_action.CopyFrom(_action(payment.next_action, payment.expires_at))
    if payment.received is not None:
        message.received.CopyFrom(money_to_proto(payment.received))
    if payment.failure is not None:
        message.failure.CopyFrom(failure_to_proto(payment.failure))
    return message


def refund_to_proto(refund: Refund) -> PaymentRefund:
    """Return a refund as callers see it."""
    message = PaymentRefund(
        id=refund.id,
        payment_id=refund.payment_id,
        state=PaymentRefundState.Value(f"PAYMENT_REFUND_STATE_{refund.state}"),
        amount=money_to_proto(refund.amount),
        fee_returned_minor=refund.fee_returned_minor,
        version=refund.version,
        business_date=refund.business_date,
    )
    if refund.failure is not None and refund.state == "FAILED":
        message.failure.CopyFrom(failure_to_proto(refund.failure))
    return message


def exception_to_proto(exception: PaymentException) -> ExceptionMessage:
    """Return an exception as operators see it."""
    message = ExceptionMessage(
        id=exception.id,
        kind=exception.kind,
        state=ExceptionStateMessage.Value(f"EXCEPTION_STATE_{exception.state}"),
        subject_id=exception.subject_id,
        payment_id=exception.payment_id,
        channel=exception.channel,
        detail=exception.detail,
        actions=exception.actions,
        default_action=exception.default_action,
        due_at=_timestamp(exception.due_at),
        action=exception.action or "",
        maker=exception.maker,
        maker_reason=exception.maker_reason,
        checker=exception.checker,
        checker_reason=exception.checker_reason,
        resolution=exception.resolution,
        biz_trace_id=exception.biz_trace_id,
        merchant_id=exception.owner.merchant_id,
        version=exception.version,
        created_at=_timestamp(exception.created_at),
        updated_at=_timestamp(exception.updated_at),
    )
    if exception.amount is not None:
        message.amount.CopyFrom(money_to_proto(exception.amount))
    return message


def failure_to_proto(failure: Failure) -> FailureMessage:
    """Return why something failed."""
    return FailureMessage(
        reason=failure.reason,
        decline_code=failure.decline_code,
        raw_code=failure.raw_code,
        advice=failure.advice,
    )


def order_from_proto(message: OrderMessage) -> Order:
    """Return what payment needs to know of an order."""
    return Order(
        id=message.id,
        merchant_id=message.merchant_id,
        type=message.type,
        state=OrderState.Name(message.state).removeprefix("ORDER_STATE_"),
        amount=Money(message.amount.currency_code, message.amount.amount_minor),
        user_id=message.user_id,
        subject=message.subject,
        fee_minor=message.fee.fee_minor,
        fee_returned_on_refund=message.fee.return_policy
        == FeeReturnPolicy.FEE_RETURN_POLICY_RETURN,
        biz_trace_id=message.biz_trace_id,
        payment_id=message.payment_id,
        expires_at=message.expires_at.ToDatetime(UTC),
    )


def charge_news_from_proto(charge: Charge) -> ChargeNews:
    """Return what a charge's row says."""
    received = None
    if charge.HasField("received"):
        received = Money(charge.received.currency_code, charge.received.amount_minor)
    state = ChargeState.Name(charge.state).removeprefix("CHARGE_STATE_")
    failure = None
    if state == "FAILED":
        failure = Failure("DECLINED", charge.decline_code, charge.raw_code, charge.advice)
    return ChargeNews(state, received, charge.qr_content, charge.redirect_url, failure)


def give_back_news_from_proto(refund: ChannelRefund, asked: Money) -> GiveBackNews:
    """Return what the row of a channel's refund says; another amount than asked is another's."""
    if refund.amount != money_to_proto(asked):
        return GiveBackNews("OTHER")
    state = ChannelRefundState.Name(refund.state).removeprefix("CHANNEL_REFUND_STATE_")
    return GiveBackNews(state, refund.raw_code)


def money_to_proto(money: Money) -> MoneyMessage:
    """Return an amount."""
    return MoneyMessage(currency_code=money.currency_code, amount_minor=money.amount_minor)


def _action(action: NextAction, expires_at: datetime) -> NextActionMessage:
    if action.kind == "show_qr":
        return NextActionMessage(
            show_qr=ShowQr(content=action.content, expires_at=_timestamp(expires_at))
        )
    if action.kind == "redirect":
        return NextActionMessage(redirect=Redirect(url=action.content))
    return NextActionMessage(wait=Wait(seconds=_WAIT_SECONDS))


def _timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message
