"""Which webhooks the merchant is owed, by what really happened; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from paymesh.type.v1 import Fact

from services.cli.demo.webhooks import Heard

_BY_ORDER: Final = {"COMPLETED": "order.completed", "CLOSED": "order.closed"}
_BY_REFUND: Final = {"COMPLETED": "refund.completed", "FAILED": "refund.failed"}
_BY_PAYMENT: Final = {
    "FAILED": "payment.failed",
    "CLOSED": "payment.failed",
    "CONFLICTED": "payment.conflicted",
    "RETURNED": "payment.returned",
    "UNCLAIMED": "payment.unclaimed",
}


def webhooks_owed(
    orders: Iterable[Fact],
    refunds: Iterable[Fact],
    payments: Iterable[Fact],
    deliveries: Iterable[Fact],
) -> set[Heard]:
    """Return what the merchant must have heard.

    `orders` and `refunds` are trade's facts, `payments` payment's: each end is told of. What notify
    has on its list (`deliveries`) must have come, too: a payment that failed and succeeded late was
    told of when it failed.
    """
    owed: set[Heard] = set()
    for facts, kinds in ((orders, _BY_ORDER), (refunds, _BY_REFUND), (payments, _BY_PAYMENT)):
        for fact in facts:
            kind = kinds.get(fact.values["state"])
            if kind is not None:
                owed.add((kind, fact.key))
    owed.update((fact.values["type"], fact.values["subject_id"]) for fact in deliveries)
    return owed
