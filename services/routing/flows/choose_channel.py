"""Ranks the channels for one payment, from memory."""

from __future__ import annotations

from collections.abc import Collection

from common.errors import AmountOutOfRangeError
from common.money import AMOUNT_MINOR_MAX, Money
from common.telemetry import metrics
from services.routing.domain import Choice, RuleSet, choose
from services.routing.errors import ChannelNotEligibleError

_CHOSEN = metrics.counter("paymesh.routing.choices", "Choices, by product and first channel")


def choose_channel(
    rules: RuleSet, payment_id: str, product: str, amount: Money, excluded: Collection[str]
) -> Choice:
    """Return the ranked channels, at least one.

    Raises:
        ChannelNotEligibleError: no channel may carry it; says why not, for each.
        AmountOutOfRangeError: nothing to be paid.
    """
    if not 0 < amount.amount_minor <= AMOUNT_MINOR_MAX:
        raise AmountOutOfRangeError(field="amount.amount_minor")
    choice = choose(rules, payment_id, product, amount, excluded)
    if not choice.candidates:
        _CHOSEN.add(1, {"product": product, "channel": "none"})
        raise ChannelNotEligibleError(product=product, why=choice.why_none)
    _CHOSEN.add(1, {"product": product, "channel": choice.candidates[0].channel})
    return choice
