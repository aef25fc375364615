"""Account balance: the user pays from the wallet; the ledger alone moves the money."""

from __future__ import annotations

from services.payment.domain.payments import PaymentForm
from services.payment.domain.plans import Collection, Plan, PlanRequest, Product, missing
from services.payment.products import PRODUCTS


def _plan(request: PlanRequest) -> Plan:
    return Plan(PaymentForm.TRANSFER, Collection.LEDGER, missing(request, "user_id"))


PRODUCTS.add("balance", Product("balance", frozenset({"purchase"}), _plan), module=__name__)
