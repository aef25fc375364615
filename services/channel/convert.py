"""Domain ↔ contract."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.channel.v1 import (
    CallbackFinding,
    ChannelRefundState,
    ChargeRequest,
    ChargeState,
    ExamineCallbackResponse,
    RefundRequest,
)
from paymesh.channel.v1 import Channel as ChannelMessage
from paymesh.channel.v1 import ChannelRefund as RefundMessage
from paymesh.channel.v1 import Charge as ChargeMessage
from paymesh.type.v1 import Money as MoneyMessage

from common.money import Money
from services.channel.catalogue import Channel, verbs_of
from services.channel.domain import Charge, Refund, advice_to_payer
from services.channel.flows.charge_payer import NewCharge
from services.channel.flows.examine_callback import Examined
from services.channel.flows.refund_payer import NewRefund

# What surely never reached the channel is, to others: a charge that failed (they choose another
# channel), a refund that the channel does not know (they send the same one again).
_CHARGE_STATES = {"NOT_SENT": "FAILED"}
_REFUND_STATES = {"NOT_SENT": "NOT_FOUND"}


def new_charge_from_proto(request: ChargeRequest) -> NewCharge:
    """Return what is asked for."""
    expires_at: datetime | None = None
    if request.HasField("expires_at"):
        expires_at = request.expires_at.ToDatetime(UTC)
    return NewCharge(
        reference=request.reference,
        channel=request.channel,
        payment_id=request.payment_id,
        product=request.product,
        card_id=request.card_id,
        subject=request.subject,
        amount=Money(request.amount.currency_code, request.amount.amount_minor),
        expires_at=expires_at,
    )


def new_refund_from_proto(request: RefundRequest) -> NewRefund:
    """Return what is asked for."""
    return NewRefund(
        reference=request.reference,
        charge_reference=request.charge_reference,
        subject_id=request.subject_id,
        words=request.reason,
        amount=Money(request.amount.currency_code, request.amount.amount_minor),
    )


def charge_to_proto(charge: Charge, *, is_unseen: bool = False) -> ChargeMessage:
    """Return a charge as callers see it; `is_unseen`: its channel does not know it (yet)."""
    state = "NOT_FOUND" if is_unseen else _CHARGE_STATES.get(charge.state, charge.state)
    message = ChargeMessage(
        reference=charge.reference,
        channel=charge.channel,
        payment_id=charge.payment_id,
        state=ChargeState.Value(f"CHARGE_STATE_{state}"),
        amount=money_to_proto(charge.amount),
        channel_transaction_no=charge.channel_transaction_no,
        qr_content=charge.qr_content,
        redirect_url=charge.redirect_url,
        decline_code=charge.refusal.code,
        raw_code=charge.refusal.raw_code,
        advice=advice_to_payer(charge.refusal),
        version=charge.version,
    )
    if charge.received is not None:
        message.received.CopyFrom(money_to_proto(charge.received))
    if charge.paid_at is not None:
        message.paid_at.CopyFrom(timestamp(charge.paid_at))
    return message


def refund_to_proto(refund: Refund, *, is_unseen: bool = False) -> RefundMessage:
    """Return a refund as callers see it; `is_unseen`: its channel does not know it."""
    state = "NOT_FOUND" if is_unseen else _REFUND_STATES.get(refund.state, refund.state)
    return RefundMessage(
        reference=refund.reference,
        charge_reference=refund.charge_reference,
        channel=refund.channel,
        subject_id=refund.subject_id,
        state=ChannelRefundState.Value(f"CHANNEL_REFUND_STATE_{state}"),
        amount=money_to_proto(refund.amount),
        channel_transaction_no=refund.channel_transaction_no,
        raw_code=refund.refusal.raw_code,
        version=refund.version,
    )


def examined_to_proto(examined: Examined) -> ExamineCallbackResponse:
    """Return what came of looking into a callback."""
    return ExamineCallbackResponse(
        finding=CallbackFinding.Value(f"CALLBACK_FINDING_{examined.finding}"),
        detail=examined.detail,
        subject_id=examined.subject_id,
    )


def channel_to_proto(channel: Channel) -> ChannelMessage:
    """Return a channel and what it can do."""
    return ChannelMessage(
        code=channel.code,
        adapter=channel.row.adapter,
        products=channel.row.products,
        verbs=verbs_of(channel),
        currency_codes=channel.row.currency_codes,
    )


def timestamp(at: datetime) -> Timestamp:
    """Return an instant as messages carry it."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def money_to_proto(money: Money) -> MoneyMessage:
    """Return money as messages carry it."""
    return MoneyMessage(currency_code=money.currency_code, amount_minor=money.amount_minor)
