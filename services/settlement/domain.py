"""Fee plans and clearing entries as values, and the arithmetic that entries must satisfy."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime

from common.ids import derive
from common.money import PPM


@dataclass(frozen=True, slots=True)
class FeePlan:
    """What a merchant pays."""

    rate_ppm: int
    returned_on_refund: bool
    version: int = 0
    """Counts its changes; 0 is the platform's default plan."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate_ppm <= PPM:
            raise ValueError("a rate is between nothing and all")


class ClearingKind(enum.StrEnum):
    """What an entry is for."""

    PAYMENT = "PAYMENT"
    REFUND = "REFUND"


@dataclass(frozen=True, slots=True)
class ClearingEntry:
    """What one movement means for a merchant; negative when money goes back."""

    id: str
    kind: ClearingKind
    subject_id: str
    """The payment or refund."""
    payment_id: str
    """The payment, also of a refund."""
    order_id: str
    tenant_id: str
    mode: str
    merchant_id: str
    currency_code: str
    gross_minor: int
    fee_minor: int
    net_minor: int
    business_date: date
    biz_trace_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ClearingTotal:
    """What one business date means for a merchant in one currency, in minor units."""

    business_date: date
    currency_code: str
    payments: int
    refunds: int
    paid_minor: int
    refunded_minor: int
    fees_minor: int
    net_minor: int


def entry_id(kind: ClearingKind, subject_id: str) -> str:
    """Return the id of the one entry that a payment or refund has."""
    return derive("clr", subject_id, kind)


def why_off(entry: ClearingEntry) -> str:
    """Say what does not add up in an entry; empty when all does."""
    if entry.net_minor != entry.gross_minor - entry.fee_minor:
        return (
            f"{entry.subject_id}: net {entry.net_minor} is not gross {entry.gross_minor} "
            f"less fee {entry.fee_minor}"
        )
    sign = 1 if entry.kind is ClearingKind.PAYMENT else -1
    if entry.gross_minor * sign <= 0:
        return f"{entry.subject_id}: gross {entry.gross_minor} has not the sign of its kind"
    if not 0 <= entry.fee_minor * sign <= entry.gross_minor * sign:
        return f"{entry.subject_id}: fee {entry.fee_minor} is not between nothing and gross"
    return ""
