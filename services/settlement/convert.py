"""Domain ↔ contract."""

from __future__ import annotations

from paymesh.settlement.v1 import ClearingTotal as ClearingTotalMessage
from paymesh.settlement.v1 import FeePlan as FeePlanMessage

from services.settlement.domain import ClearingTotal, FeePlan


def fee_plan_from_proto(message: FeePlanMessage) -> FeePlan:
    """Return a plan as it is asked for."""
    return FeePlan(message.rate_ppm, message.returned_on_refund, message.version)


def fee_plan_to_proto(plan: FeePlan) -> FeePlanMessage:
    """Return a plan as callers see it."""
    return FeePlanMessage(
        rate_ppm=plan.rate_ppm, returned_on_refund=plan.returned_on_refund, version=plan.version
    )


def total_to_proto(total: ClearingTotal) -> ClearingTotalMessage:
    """Return a total as callers see it."""
    return ClearingTotalMessage(
        business_date=total.business_date.isoformat(),
        currency_code=total.currency_code,
        payments=total.payments,
        refunds=total.refunds,
        paid_minor=total.paid_minor,
        refunded_minor=total.refunded_minor,
        fees_minor=total.fees_minor,
        net_minor=total.net_minor,
    )
