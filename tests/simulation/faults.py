"""How bad a world is: rates of everything that can go wrong, drawn from the seed.

A seed decides which kinds of trouble there are at all, so that some seeds are quiet, some have one
kind in plenty, and some have everything at once. When `end` is called, nothing goes wrong any more.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

RATES_MAX: Final = {
    # Between services, for each call.
    "request dropped": 0.08,
    "answer dropped": 0.08,
    "call repeated": 0.25,
    "call slow": 0.15,
    # Between a service and its tables, for each transaction.
    "connection lost before": 0.02,
    "connection lost after": 0.02,
    "transaction slow": 0.10,
    "killed before": 0.004,
    "killed after": 0.004,
    # Processes, for each step of any task.
    "killed at a step": 0.0004,
    # Events, for each message.
    "event repeated": 0.2,
    "event late": 0.3,
    "publish lost": 0.1,
    "confirm lost": 0.1,
    # Channels, for each request.
    "bank declines": 0.2,
    "bank is slow": 0.2,
    "bank loses the request": 0.15,
    "bank loses the answer": 0.15,
    "bank takes another amount": 0.25,
    "bank is pending": 0.4,
    "bank refuses the refund": 0.5,
    "bank refuses an accepted refund": 0.4,
    "bank is away": 0.01,
    # Callbacks, for each.
    "callback early": 0.3,
    "callback repeated": 0.3,
    "callback late": 0.3,
    "callback lost": 0.3,
    "callback contradicts": 0.1,
    "callback with another amount": 0.08,
    "callback with a wrong signature": 0.08,
    "callback about nothing": 0.05,
    # Channels again, for each refusal to give back.
    "bank carries out what it refused": 1.0,
}
"""The worst that each kind can be."""

_ABSENT: Final = 0.45
"""Share of the kinds that a world does not have."""


def seeded(seed: int, what: str) -> random.Random:
    """Return a source of chance of its own for one part of a world."""
    return random.Random(f"{seed}/{what}")  # noqa: S311 - no secret


class Faults:
    """The troubles of one world."""

    def __init__(self, chance: random.Random, without: frozenset[str] = frozenset()) -> None:
        self.chance = chance
        self.is_over = False
        self.counted: Counter[str] = Counter()
        """How often each kind happened."""
        quiet = chance.random() < 0.03
        self.rates = {
            kind: 0.0 if quiet or chance.random() < _ABSENT else worst * chance.random()
            for kind, worst in RATES_MAX.items()
        }
        for kind in without:
            self.rates[kind] = 0.0

    def happens(self, kind: str) -> bool:
        """Say whether it goes wrong this time."""
        rate = self.rates[kind]
        if self.is_over or rate == 0.0 or self.chance.random() >= rate:
            return False
        self.counted[kind] += 1
        return True

    def between(self, least: float, most: float) -> float:
        """Return a number of seconds; small ones are the most usual."""
        return least + (most - least) * self.chance.random() ** 3

    def end(self) -> None:
        """From now on all is well."""
        self.is_over = True
