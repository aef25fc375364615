"""What the shop itself knows of its business; the report is checked against it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts and sums of what the shop has seen with its own eyes."""

    orders: int = 0
    recharges: int = 0
    recharged_minor: int = 0
    paid_minor: int = 0
    refunds: int = 0
    refunded_minor: int = 0
    declined: int = 0
    by_product: Counter[str] = field(default_factory=Counter)
    payments: int = 0
    """Payments that succeeded, recharges among them."""
    paid_again: int = 0
    """Payments that were made because the one before did not pay the order."""
    paid_twice: int = 0
    """Orders that a customer paid by two codes at once."""
    refunds_again: int = 0
    """Refunds that were asked for again because the channel had refused."""
    expected: set[tuple[str, str]] = field(default_factory=set)
    """Webhooks, by type and the noun's id, that must come by what the shop has seen."""
    failures: list[str] = field(default_factory=list)
    """Purchases that did not go as planned, in words."""
    sample_order_id: str = ""
    """A refunded order that was declined first: the longest story there is."""

    def expect(self, webhook_type: str, noun_id: str) -> None:
        """Note that a webhook must come."""
        self.expected.add((webhook_type, noun_id))
