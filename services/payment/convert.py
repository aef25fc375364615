"""Domain ↔ contract."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
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
from paymesh.type.v1 import Money as MoneyMessage

from common.money import Money
from services.payment.domain.exceptions import PaymentException
from services.payment.domain.payments import Failure, NextAction, Payment, Refund

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
        amount=MoneyMessage(
            currency_code=payment.amount.currency_code, amount_minor=payment.amount.amount_minor
        ),
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
        message.received.CopyFrom(_money(payment.received))
    if payment.failure is not None:
        message.failure.CopyFrom(failure_to_proto(payment.failure))
    return message


def refund_to_proto(refund: Refund) -> PaymentRefund:
    """Return a refund as callers see it."""
    message = PaymentRefund(
        id=refund.id,
        payment_id=refund.payment_id,
        state=PaymentRefundState.Value(f"PAYMENT_REFUND_STATE_{refund.state}"),
        amount=MoneyMessage(
            currency_code=refund.amount.currency_code, amount_minor=refund.amount.amount_minor
        ),
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
        message.amount.CopyFrom(_money(exception.amount))
    return message


def failure_to_proto(failure: Failure) -> FailureMessage:
    """Return why something failed."""
    return FailureMessage(
        reason=failure.reason,
        decline_code=failure.decline_code,
        raw_code=failure.raw_code,
        advice=failure.advice,
    )


def _money(money: Money) -> MoneyMessage:
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
