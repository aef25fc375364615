"""Eligibility, choice and the sanity of rules: pure."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from common.money import AMOUNT_MINOR_MAX, Money, UnknownCurrencyError, exponent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRule:
    """How one channel may carry one product."""

    channel: str
    product: str
    currency_codes: tuple[str, ...]
    amount_min_minor: int
    amount_max_minor: int
    weight: int
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One version of the rules."""

    version: int
    rules: tuple[ChannelRule, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A channel and why it stands where it stands."""

    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The eligible, best first, and the others with the reason against each."""

    candidates: tuple[Said, ...]
    rejections: tuple[Said, ...]
    rules_version: int

    @property
    def why_none(self) -> str:
        """The reasons against all, in one line."""
        return "; ".join(f"{one.channel}: {one.reason}" for one in self.rejections)


def choose(
    rules: RuleSet, payment_id: str, product: str, amount: Money, excluded: Collection[str]
) -> Choice:
    """Rank the channels that may carry a payment.

    The order is a weighted draw that depends on the payment and the channel alone (highest random
    weight), so a channel that falls away leaves the order of the others as it was: the second of
    the first attempt is the first of the second one.
    """
    eligible: list[ChannelRule] = []
    rejections: list[Said] = []
    for rule in rules.rules:
        if rule.product != product:
            continue
        reason = reason_against(rule, amount, excluded)
        if reason:
            rejections.append(Said(rule.channel, reason))
        else:
            eligible.append(rule)
    total = sum(rule.weight for rule in eligible)
    eligible.sort(key=lambda rule: (-_draw(payment_id, rule), rule.channel))
    candidates = tuple(Said(rule.channel, f"weight {rule.weight} of {total}") for rule in eligible)
    if not candidates and not rejections:
        rejections.append(Said(product, "no channel has this product"))
    return Choice(candidates, tuple(rejections), rules.version)


def reason_against(rule: ChannelRule, amount: Money, excluded: Collection[str]) -> str:
    """Return why a channel may not carry an amount; empty when it may."""
    if rule.channel in excluded:
        return "tried already"
    if rule.suspended:
        return "suspended"
    if rule.weight == 0:
        return "weight 0"
    if amount.currency_code not in rule.currency_codes:
        return f"currency {amount.currency_code} not taken"
    if amount.amount_minor < rule.amount_min_minor:
        return f"amount below {rule.amount_min_minor}"
    if amount.amount_minor > rule.amount_max_minor:
        return f"amount above {rule.amount_max_minor}"
    return ""


_SHARES: Final = 2**53
"""As many as a float tells apart."""


def _draw(payment_id: str, rule: ChannelRule) -> float:
    """Return the channel's lot for a payment: the largest wins in proportion to the weights.

    −weight / ln(u) with u uniform in (0, 1): rendezvous hashing with weights. No money is in it.
    """
    text = f"{payment_id}\x1f{rule.product}\x1f{rule.channel}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
    return -rule.weight / math.log((number + 0.5) / _SHARES)


def fault_of(rules: Sequence[ChannelRule]) -> tuple[str, str] | None:
    """Return what is wrong with rules as (field, rule it breaks); None when they are sane."""
    counted = Counter((rule.channel, rule.product) for rule in rules)
    for place, rule in enumerate(rules):
        fault = _fault_of_one(rule)
        if fault is not None:
            return f"rules[{place}].{fault[0]}", fault[1]
        if counted[rule.channel, rule.product] > 1:
            return f"rules[{place}].channel", "each channel has each product once"
    for product in {rule.product for rule in rules}:
        if not any(rule.weight for rule in rules if rule.product == product):
            return "rules.weight", f"nobody can reach {product}: all its weights are 0"
    if not rules:
        return "rules", "there must be at least one"
    return None


def _fault_of_one(rule: ChannelRule) -> tuple[str, str] | None:
    if not rule.currency_codes or len(set(rule.currency_codes)) != len(rule.currency_codes):
        return "currency_codes", "at least one, and none twice"
    for code in rule.currency_codes:
        try:
            exponent_of(code)
        except UnknownCurrencyError:
            return "currency_codes", f"no currency {code}"
    if rule.amount_min_minor < 1 or rule.amount_max_minor > AMOUNT_MINOR_MAX:
        return "amount_min_minor", "amounts are from 1 to 10^15"
    if rule.amount_min_minor > rule.amount_max_minor:
        return "amount_min_minor", "must not be above amount_max_minor"
    if rule.weight < 0:
        return "weight", "must not be below 0"
    return None
