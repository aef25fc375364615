"""Rows of the schema `channel` as domain objects, and batches of those as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.db.types import Record
from common.money import Money
from services.channel.domain import (
    Charge,
    ChargeState,
    Owner,
    Refund,
    RefundState,
    Refusal,
)


def charge_from(row: Record) -> Charge:
    """Return the charge of a row."""
    received = None
    if row["received_minor"] is not None:
        received = Money(row["received_currency_code"], row["received_minor"])
    return Charge(
        reference=row["reference"],
        owner=_owner(row),
        channel=row["channel"],
        payment_id=row["payment_id"],
        product=row["product"],
        card_id=row["card_id"],
        subject=row["subject"],
        amount=Money(row["currency_code"], row["amount_minor"]),
        expires_at=row["expires_at"],
        state=ChargeState(row["state"]),
        received=received,
        channel_transaction_no=row["channel_transaction_no"],
        qr_content=row["qr_content"],
        redirect_url=row["redirect_url"],
        refusal=_refusal(row),
        paid_at=row["paid_at"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def refund_from(row: Record) -> Refund:
    """Return the refund of a row."""
    return Refund(
        reference=row["reference"],
        charge_reference=row["charge_reference"],
        owner=_owner(row),
        channel=row["channel"],
        subject_id=row["subject_id"],
        amount=Money(row["currency_code"], row["amount_minor"]),
        words=row["words"],
        state=RefundState(row["state"]),
        channel_transaction_no=row["channel_transaction_no"],
        refusal=_refusal(row),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def charge_columns(charges: Sequence[Charge]) -> list[list[Any]]:
    """Return the columns of `insert_charges`."""
    return _columns(
        (
            one.reference,
            *_owner_values(one.owner),
            one.channel,
            one.payment_id,
            one.product,
            one.card_id,
            one.subject,
            one.amount.currency_code,
            one.amount.amount_minor,
            one.expires_at,
            *_charge_state_values(one),
            one.created_at,
            one.updated_at,
        )
        for one in charges
    )


def charge_change_columns(charges: Sequence[Charge]) -> list[list[Any]]:
    """Return the columns of `update_charges`."""
    return _columns((one.reference, *_charge_state_values(one), one.updated_at) for one in charges)


def refund_columns(refunds: Sequence[Refund]) -> list[list[Any]]:
    """Return the columns of `insert_refunds`."""
    return _columns(
        (
            one.reference,
            one.charge_reference,
            *_owner_values(one.owner),
            one.channel,
            one.subject_id,
            one.amount.currency_code,
            one.amount.amount_minor,
            one.words,
            *_refund_state_values(one),
            one.created_at,
            one.updated_at,
        )
        for one in refunds
    )


def refund_change_columns(refunds: Sequence[Refund]) -> list[list[Any]]:
    """Return the columns of `update_refunds`."""
    return _columns((one.reference, *_refund_state_values(one), one.updated_at) for one in refunds)


def _columns(rows: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _owner(row: Record) -> Owner:
    return Owner(
        tenant_id=row["tenant_id"],
        mode=row["mode"],
        merchant_id=row["merchant_id"],
        actor=row["actor"],
        biz_trace_id=row["biz_trace_id"],
    )


def _owner_values(owner: Owner) -> tuple[str, ...]:
    return (owner.tenant_id, owner.mode, owner.merchant_id, owner.actor, owner.biz_trace_id)


def _refusal(row: Record) -> Refusal:
    return Refusal(
        reason=row["refusal_reason"],
        code=row["decline_code"],
        raw_code=row["raw_code"],
        raw_message=row["raw_message"],
        remedy=row["remedy"],
        blame=row["blame"],
    )


def _refusal_values(refusal: Refusal) -> tuple[str, ...]:
    return (
        refusal.reason,
        refusal.code,
        refusal.raw_code,
        refusal.raw_message,
        refusal.remedy,
        refusal.blame,
    )


def _charge_state_values(charge: Charge) -> tuple[Any, ...]:
    received = charge.received
    return (
        charge.state,
        received.currency_code if received else None,
        received.amount_minor if received else None,
        charge.channel_transaction_no,
        charge.qr_content,
        charge.redirect_url,
        *_refusal_values(charge.refusal),
        charge.paid_at,
        charge.version,
    )


def _refund_state_values(refund: Refund) -> tuple[Any, ...]:
    return (
        refund.state,
        refund.channel_transaction_no,
        *_refusal_values(refund.refusal),
        refund.version,
    )
