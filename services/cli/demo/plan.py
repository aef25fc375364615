"""Who pays how: a fixed, seeded mix, so that two runs of the demo do the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.cli.demo.purchases import Purchase

WAYS: Final = ("balance", "qr_pay", "quick_pay")
SEED: Final = 19970101
"""The first day of the data; any number would do."""

_DECLINED_SHARE: Final = 0.05
_REFUNDED_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class PlannedPurchase:
    """A purchase and what the shop will do with it."""

    purchase: Purchase
    way: str
    """Product that pays it; empty for an order for nothing."""
    declined_first: bool
    """Paid with a card that is declined first, then by `way`."""
    refund_minor: int
    """What the shop gives back once it is completed, in cents; 0 for nothing."""

    @property
    def order_no(self) -> str:
        """The shop's own number of the order."""
        return f"line-{self.purchase.line:06d}"


def plan_purchases(purchases: Sequence[Purchase], seed: int = SEED) -> list[PlannedPurchase]:
    """Return the plan, in the order of the purchases; depends on line numbers and seed alone."""
    return [_plan(purchase, seed) for purchase in purchases]


def _plan(purchase: Purchase, seed: int) -> PlannedPurchase:
    if purchase.amount_minor == 0:
        return PlannedPurchase(purchase, "", declined_first=False, refund_minor=0)
    chance = random.Random(f"{seed}:{purchase.line}")  # noqa: S311 - a plan is no secret
    way = chance.choice(WAYS)
    declined = chance.random() < _DECLINED_SHARE
    if declined and way == "quick_pay":
        way = chance.choice(("balance", "qr_pay"))  # "another way" than the declined card
    refund = 0
    if chance.random() < _REFUNDED_SHARE:
        is_part = chance.random() < 0.5
        part = chance.randint(1, purchase.amount_minor)
        refund = part if is_part else purchase.amount_minor
    return PlannedPurchase(purchase, way, declined, refund)


def recharges_of(plan: Sequence[PlannedPurchase]) -> dict[str, int]:
    """Return what each customer puts into the wallet, in cents: all that the balance will pay."""
    totals: dict[str, int] = {}
    for planned in plan:
        if planned.way == "balance":
            customer = planned.purchase.customer
            totals[customer] = totals.get(customer, 0) + planned.purchase.amount_minor
    return totals
