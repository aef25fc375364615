"""Rules, what they say of an action by themselves, and what they want counted: pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Final

from common.money import Money

DEGRADED: Final = "counters_unavailable"
"""Code of the stated policy that blocks when counters cannot be read."""

DIMENSIONS: Final = ("user", "card", "ip", "device")


class Verdict(enum.StrEnum):
    """What risk says. (CHALLENGE is reserved.)"""

    PASS = "PASS"  # noqa: S105 - no password
    BLOCK = "BLOCK"


@dataclass(frozen=True, slots=True)
class AmountRule:
    """The largest single amount."""

    code: str
    actions: tuple[str, ...]
    amount_max_minor: int
    products: tuple[str, ...] = ()
    """Empty: all."""


@dataclass(frozen=True, slots=True)
class CounterRule:
    """What one value of a dimension may do in a window."""

    code: str
    actions: tuple[str, ...]
    dimension: str
    measure: str
    limit: int
    window_seconds: int = 0
    """Of a sliding window; 0: the calendar day of the business zone."""
    counts_attempts: bool = False
    """Not given back when the action fails."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the rules. Blocked values are hashes, by dimension."""

    version: int
    amounts: tuple[AmountRule, ...] = ()
    counters: tuple[CounterRule, ...] = ()
    blocked: Mapping[str, frozenset[str]] = field(default_factory=dict)
    degraded_max_minor: Mapping[str, int] = field(default_factory=dict)
    reservation_seconds: int = 10_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is to be judged; the dimensions are hashes, empty ones left out."""

    action_id: str
    action: str
    amount: Money
    product: str
    user_id: str
    card_id: str
    hashes: Mapping[str, str]
    """Hash by dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict, as it stays under the action's id."""

    action: Action
    tenant_id: str
    mode: str
    merchant_id: str
    actor: str
    biz_trace_id: str
    verdict: Verdict
    rules: tuple[str, ...]
    rules_version: int
    degraded: bool
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Use:
    """What an action uses of one counter."""

    code: str
    counter: str
    """The counter's name, without tenant and mode."""
    add: int
    limit: int
    held_until_ms: int
    """When the reservation falls away by itself."""
    kept_until_ms: int
    """When what was confirmed falls away; 0: as the reservation does."""
    counter_ends_ms: int
    """When the whole counter is worth nothing any more."""


def judge_alone(rules: Rules, action: Action) -> tuple[str, ...]:
    """Return the codes of the rules that block an action whatever else happens."""
    codes = [
        f"{dimension}_blocked"
        for dimension in DIMENSIONS
        if action.hashes.get(dimension) in rules.blocked.get(dimension, frozenset())
    ]
    codes += [
        rule.code
        for rule in rules.amounts
        if action.action in rule.actions
        and (not rule.products or action.product in rule.products)
        and action.amount.amount_minor > rule.amount_max_minor
    ]
    return tuple(codes)


def judge_degraded(rules: Rules, action: Action) -> tuple[str, ...]:
    """Return what blocks an action while no counter can be read: the stated policy, by amount."""
    largest = rules.degraded_max_minor.get(action.action, 0)
    return () if action.amount.amount_minor <= largest else (DEGRADED,)


def uses_of(rules: Rules, action: Action, now: datetime, zone: tzinfo) -> list[Use]:
    """Return what an action uses of the counters at an instant."""
    local = now.astimezone(zone)
    day = local.date().isoformat()
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    day_ends_ms = _milliseconds(midnight)
    uses = []
    for rule in rules.counters:
        value = action.hashes.get(rule.dimension)
        if value is None or action.action not in rule.actions:
            continue
        is_sum = rule.measure == "sum"
        unit = action.amount.currency_code if is_sum else "count"
        if rule.window_seconds:
            ends_ms = _milliseconds(now) + rule.window_seconds * 1000
            window, held_ms, gone_ms = "sliding", ends_ms, ends_ms
        else:
            window, gone_ms = day, day_ends_ms
            held_ms = min(_milliseconds(now) + rules.reservation_seconds * 1000, day_ends_ms)
        uses.append(
            Use(
                code=rule.code,
                counter=f"{rule.code}:{unit}:{value}:{window}",
                add=action.amount.amount_minor if is_sum else 1,
                limit=rule.limit,
                held_until_ms=gone_ms if rule.counts_attempts else held_ms,
                kept_until_ms=0 if rule.counts_attempts else gone_ms,
                counter_ends_ms=gone_ms,
            )
        )
    return uses


def action_differs(stored: Action, asked: Action) -> str:
    """Return the first field in which a repeat differs; empty when none does."""
    named = (
        ("action", stored.action, asked.action),
        ("amount.currency_code", stored.amount.currency_code, asked.amount.currency_code),
        ("amount.amount_minor", stored.amount.amount_minor, asked.amount.amount_minor),
        ("product", stored.product, asked.product),
        ("user_id", stored.user_id, asked.user_id),
        ("card_id", stored.card_id, asked.card_id),
    )
    return next((name for name, before, now in named if before != now), "")


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
