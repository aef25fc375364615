"""Platform pay by a QR code that the merchant shows: the payer scans, the channel calls back."""

from __future__ import annotations

from services.payment.domain.payments import PaymentForm
from services.payment.domain.plans import Collection, Plan, PlanRequest, Product, missing
from services.payment.products import PRODUCTS


def _plan(request: PlanRequest) -> Plan:
    needed = ("user_id",) if request.order_type == "recharge" else ()
    return Plan(PaymentForm.RECHARGE, Collection.CHANNEL, missing(request, *needed))


PRODUCTS.add(
    "qr_pay", Product("qr_pay", frozenset({"purchase", "recharge"}), _plan), module=__name__
)
