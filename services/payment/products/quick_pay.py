"""Quick pay on a bound card: the channel answers at once, without a redirect."""

from __future__ import annotations

from services.payment.domain.payments import PaymentForm
from services.payment.domain.plans import Collection, Plan, PlanRequest, Product, missing
from services.payment.products import PRODUCTS


def _plan(request: PlanRequest) -> Plan:
    return Plan(PaymentForm.RECHARGE, Collection.CHANNEL, missing(request, "user_id", "card_id"))


PRODUCTS.add(
    "quick_pay", Product("quick_pay", frozenset({"purchase", "recharge"}), _plan), module=__name__
)
