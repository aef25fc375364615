"""Plans of faults: which kinds there are, where each makes sense, and which request a rule hits.

Everything here is pure. A draw depends on the plan's seed, the rule's id, our reference, the verb
and how often that was asked before, and on nothing else, so the same request meets the same fate in
every run, and a repeat is drawn anew.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import FieldInvalidError

PPM: Final = 1_000_000

ALIPAY: Final = "alipay"
UNIONPAY: Final = "unionpay"
PARTIES: Final = (ALIPAY, UNIONPAY)


class Verb(enum.StrEnum):
    """What a party is asked to do. A void counts as a refund."""

    PAY = "pay"
    QUERY = "query"
    CLOSE = "close"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"


class FaultKind(enum.StrEnum):
    """What goes wrong; the names are those of the contract."""

    DECLINE = "DECLINE"
    SLOW = "SLOW"
    ANSWER_LOST_BEFORE = "ANSWER_LOST_BEFORE"
    ANSWER_LOST_AFTER = "ANSWER_LOST_AFTER"
    CALLBACK_DOUBLE = "CALLBACK_DOUBLE"
    CALLBACK_LATE = "CALLBACK_LATE"
    CALLBACK_EARLY = "CALLBACK_EARLY"
    CALLBACK_REORDERED = "CALLBACK_REORDERED"
    CALLBACK_CONTRADICTORY = "CALLBACK_CONTRADICTORY"
    CALLBACK_WRONG_AMOUNT = "CALLBACK_WRONG_AMOUNT"
    CALLBACK_WRONG_SIGNATURE = "CALLBACK_WRONG_SIGNATURE"
    WRONG_AMOUNT = "WRONG_AMOUNT"
    OUTAGE = "OUTAGE"
    CALLBACK_UNKNOWN_REFERENCE = "CALLBACK_UNKNOWN_REFERENCE"
    REFUND_REFUSED = "REFUND_REFUSED"


DELAYED: Final = frozenset({FaultKind.SLOW, FaultKind.CALLBACK_LATE, FaultKind.OUTAGE})
"""The kinds that mean nothing without `delay_ms`."""

_TAKING: Final = frozenset({Verb.PAY})
_GIVING_BACK: Final = frozenset({Verb.REFUND})
_MOVING: Final = _TAKING | _GIVING_BACK
_VERBS: Final[dict[FaultKind, frozenset[Verb]]] = {
    FaultKind.DECLINE: _TAKING,
    FaultKind.SLOW: frozenset(Verb),
    FaultKind.ANSWER_LOST_BEFORE: frozenset(Verb),
    FaultKind.ANSWER_LOST_AFTER: frozenset(Verb),
    FaultKind.CALLBACK_DOUBLE: _MOVING,
    FaultKind.CALLBACK_LATE: _MOVING,
    FaultKind.CALLBACK_EARLY: _MOVING,
    FaultKind.CALLBACK_REORDERED: _MOVING,
    FaultKind.CALLBACK_CONTRADICTORY: _MOVING,
    FaultKind.CALLBACK_WRONG_AMOUNT: _MOVING,
    FaultKind.CALLBACK_WRONG_SIGNATURE: _MOVING,
    FaultKind.WRONG_AMOUNT: _TAKING,
    FaultKind.OUTAGE: frozenset(Verb),
    FaultKind.CALLBACK_UNKNOWN_REFERENCE: _TAKING,
    FaultKind.REFUND_REFUSED: _GIVING_BACK,
}
_IMPOSSIBLE: Final = frozenset({(FaultKind.CALLBACK_CONTRADICTORY, ALIPAY, Verb.REFUND)})
"""Alipay has no words for a refund that failed: it notifies of refunds that were made."""


def makes_sense(kind: FaultKind, party: str, verb: Verb) -> bool:
    """Say whether a party can commit this fault on this verb."""
    if party == UNIONPAY and verb is Verb.CLOSE:
        return False  # it has no such verb
    return verb in _VERBS[kind] and (kind, party, verb) not in _IMPOSSIBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of ours, as rules see it."""

    party: str
    merchant_number: str
    """app_id or merId."""
    verb: Verb
    reference: str
    amount_minor: int
    """Of what the request is about; 0 when the party does not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One thing that goes wrong, and where; the fields are those of the contract."""

    rule_id: str
    kind: FaultKind
    party: str = ""
    merchant_number: str = ""
    verb: str = ""
    amount_minor: int = 0
    rate_ppm: int = 0
    delay_ms: int = 0
    hits_max: int = 0

    @property
    def delay_seconds(self) -> float:
        """The delay as the loop and the clock want it."""
        return self.delay_ms / 1000

    def concerns(self, asked: Asked) -> bool:
        """Say whether the rule is about such requests at all."""
        return (
            self.party in ("", asked.party)
            and self.merchant_number in ("", asked.merchant_number)
            and self.verb in ("", asked.verb)
            and self.amount_minor in (0, asked.amount_minor)
            and makes_sense(self.kind, asked.party, asked.verb)
        )


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The seed and the rules; without rules the parties behave."""

    seed: int = 0
    rules: tuple[FaultRule, ...] = ()


def drawn_number(seed: int, rule_id: str, asked: Asked, ordinal: int) -> int:
    """Return 64 bits that depend on the arguments only; `ordinal` counts from 0."""
    text = f"{seed}\n{rule_id}\n{asked.reference}\n{asked.verb.value}\n{ordinal}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def is_hit(seed: int, rule: FaultRule, asked: Asked, ordinal: int) -> bool:
    """Say whether the rule hits this request, its bound on hits aside."""
    if not rule.concerns(asked):
        return False
    return drawn_number(seed, rule.rule_id, asked, ordinal) % PPM < rule.rate_ppm


def check_rules(rules: Sequence[FaultRule]) -> None:
    """Refuse rules that could never do what they say. Raises FieldInvalidError."""
    known: set[str] = set()
    for position, rule in enumerate(rules):
        place = f"rules[{position}]"
        if rule.rule_id in known:
            raise FieldInvalidError(field=f"{place}.rule_id", rule="must be unique in its plan")
        known.add(rule.rule_id)
        if rule.party not in ("", *PARTIES):
            raise FieldInvalidError(
                field=f"{place}.party", rule=f"must be empty or one of {', '.join(PARTIES)}"
            )
        if rule.verb and rule.verb not in [verb.value for verb in Verb]:
            raise FieldInvalidError(
                field=f"{place}.verb", rule=f"must be empty or one of {', '.join(Verb)}"
            )
        parties = [rule.party] if rule.party else PARTIES
        verbs = [Verb(rule.verb)] if rule.verb else list(Verb)
        if not any(makes_sense(rule.kind, party, verb) for party in parties for verb in verbs):
            raise FieldInvalidError(
                field=f"{place}.verb", rule=f"{rule.kind.value} makes no sense for it there"
            )
        if rule.kind in DELAYED and rule.delay_ms == 0:
            raise FieldInvalidError(
                field=f"{place}.delay_ms", rule=f"{rule.kind.value} needs a delay"
            )
