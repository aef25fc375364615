"""What goes wrong with one request: drawn where it matters, counted when it happens."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from common.money import AMOUNT_MINOR_MAX
from services.sandbox.faults.book import count_hit
from services.sandbox.faults.plan import (
    Asked,
    FaultKind,
    FaultPlan,
    FaultRule,
    drawn_number,
    is_hit,
)
from services.sandbox.notices import Notice

_TAIL: Final = 10
"""Letters of a reference that an invented one does not share with it."""


@dataclass(slots=True)
class Fate:
    """The draws for one request; lives as long as the piece of work that carries it out."""

    db: sqlite3.Connection
    plan: FaultPlan
    asked: Asked | None = None
    """None for what no rule is about."""
    ordinal: int = 0
    notices: list[Notice] = field(default_factory=list)
    """The callbacks that this request came to owe."""
    awaited: Notice | None = None
    """One that is to be tried before the request is answered."""

    def draw(self, kind: FaultKind) -> FaultRule | None:
        """Return the first rule of a kind that hits, counted; None when there is none.

        To be asked only where the fault would really happen, and once.
        """
        if self.asked is None:
            return None
        for rule in self.plan.rules:
            if (
                rule.kind is kind
                and is_hit(self.plan.seed, rule, self.asked, self.ordinal)
                and count_hit(self.db, rule.rule_id)
            ):
                return rule
        return None

    def other_amount(self, rule: FaultRule, amount_minor: int) -> int:
        """Return the amount that the party takes instead: one more or one less, never nothing."""
        if self.asked is None or amount_minor == 1:
            return amount_minor + 1
        number = drawn_number(self.plan.seed, rule.rule_id, self.asked, self.ordinal)
        upwards = number & 1 and amount_minor < AMOUNT_MINOR_MAX
        return amount_minor + 1 if upwards else amount_minor - 1


def invented(number: str) -> str:
    """Return a number that looks like this one and that nobody was ever given: its end is another.

    The digits at the end are turned round by nine, so it is never the number itself and the same
    number always gives the same invention.
    """
    head, tail = number[:-_TAIL], number[-_TAIL:]
    return head + "".join(str(9 - int(one)) if one.isdigit() else "0" for one in tail)
