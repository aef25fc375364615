"""What goes wrong in the demo, and where: data, drawn from a seed, the same for the same seed.

Two kinds of trouble. *Rules* make the simulated outside parties misbehave; *incidents* befall our
own processes and servers at a place of the replay: killed, paused, restarted one after the other.
The plan is a function of seed and number of purchases alone, so a run that ended badly is repeated
by its seed. What really meets what still depends on the machine's timing; the plan does not.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.cli.sources import SERVICES

SERVERS: Final = ("postgres", "redis", "amqp")
"""The servers that can be killed and paused, by the names that `common.embedded` gives them."""

EVERY_SERVICE: Final = "services"
"""Target of an incident that befalls all services, one after the other."""

PARTIES: Final = ("alipay", "unionpay")
"""The simulated outside parties."""

# In short runs trouble is rarer and shorter, so that they end soon.
_SHORT_RUN: Final = 100
_ROLLING_FROM: Final = 1_000
_KILLS_MAX: Final = 24
_PAID_TWICE_SHARE: Final = 0.05

PPM: Final = 1_000_000


class What(enum.StrEnum):
    """What befalls a process."""

    KILL = "kill"
    """SIGKILL; started again at once, a server after the incident's seconds."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT after the incident's seconds."""
    RESTART = "restart"
    """SIGTERM, and started again."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that befalls one of our own processes."""

    place: int
    """It comes before the shop begins this purchase of the replay, counted from 1."""
    what: What
    target: str
    """A service, a server, or EVERY_SERVICE."""
    seconds: float = 0.0
    """How long a pause lasts, or a killed server stays away."""
    joins: bool = False
    """Comes while the one before may still be felt; otherwise that one is waited for."""

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        words = f"{self.what} {self.target}"
        return f"{words} {self.seconds:.1f} s" if self.seconds else words


@dataclass(frozen=True, slots=True)
class Rule:
    """How the simulated outside parties misbehave; as `paymesh.sandbox.v1.FaultRule`."""

    rule_id: str
    kind: str
    """Name of a `FaultKind`, without its prefix."""
    rate_ppm: int
    party: str = ""
    verb: str = ""
    amount_minor: int = 0
    delay_ms: int = 0
    hits_max: int = 0


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Everything that goes wrong in one run."""

    seed: int
    rules: tuple[Rule, ...] = ()
    incidents: tuple[Incident, ...] = ()
    """In the order of their places."""


NO_FAULTS: Final = FaultPlan(seed=0)
"""The quiet run."""


class KillError(ValueError):
    """What `--kill` was given is not SERVICE@ORDER; the message says why."""


def plan_faults(seed: int, purchases: int) -> FaultPlan:
    """Return what goes wrong in a run of so many purchases."""
    return FaultPlan(
        seed,
        _draw_rules(_chance(seed, "rules"), purchases),
        _draw_incidents(_chance(seed, "incidents"), purchases),
    )


def add_kills(plan: FaultPlan, kills: Sequence[str], purchases: int) -> FaultPlan:
    """Return the plan with kills at places of one's choice, each `SERVICE@ORDER`.

    ORDER counts the purchases of the replay from 1. SERVICE may be a server, too.

    Raises:
        KillError: no such service, or no such purchase.
    """
    chosen = [_read_kill(text, purchases) for text in kills]
    return replace(plan, incidents=_in_order([*plan.incidents, *chosen]))


def pays_twice(seed: int, line: int) -> bool:
    """Say whether the customer of a purchase scans two codes for it, in two windows."""
    return _chance(seed, f"twice:{line}").random() < _PAID_TWICE_SHARE


def _read_kill(text: str, purchases: int) -> Incident:
    target, _, order = text.partition("@")
    if target not in SERVICES and target not in SERVERS:
        names = ", ".join((*SERVICES, *SERVERS))
        raise KillError(f"{text}: there is no {target or 'service'} to kill; there are {names}")
    if not (order.isascii() and order.isdigit() and 1 <= int(order) <= purchases):
        raise KillError(f"{text}: the order is a number from 1 to {purchases}, as in {target}@1")
    seconds = 1.0 if target in SERVERS else 0.0
    # The place was asked for: nothing may shift it.
    return Incident(int(order), What.KILL, target, seconds, joins=True)


def _chance(seed: int, part: str) -> random.Random:
    """Return a source of chance of its own for each part, so that one does not shift another."""
    return random.Random(f"{seed}:{part}")  # noqa: S311 - a plan is no secret


def _draw_incidents(chance: random.Random, purchases: int) -> tuple[Incident, ...]:
    drawn = [
        *_service_kills(chance, purchases),
        *_server_kills(chance, purchases),
        *_pauses(chance, purchases),
        *_rolling_restarts(purchases),
    ]
    chance.shuffle(drawn)
    # One in each stretch of the replay, so that there is load under every one of them.
    stretch = purchases / len(drawn)
    return _in_order(
        replace(
            incident,
            place=min(purchases, 1 + int((number + chance.random()) * stretch)),
            joins=number > 0 and chance.random() < 0.2,
        )
        for number, incident in enumerate(drawn)
    )


def _in_order(incidents: Iterable[Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents, key=lambda incident: incident.place))


def _service_kills(chance: random.Random, purchases: int) -> list[Incident]:
    """Kill different services before any of them again."""
    count = min(_KILLS_MAX, 4 + purchases // 250)
    targets: list[str] = []
    while len(targets) < count:
        targets += chance.sample(SERVICES, len(SERVICES))
    return [Incident(0, What.KILL, target) for target in targets[:count]]


def _server_kills(chance: random.Random, purchases: int) -> list[Incident]:
    """Kill each server; in a very short run, one of them."""
    rounds = 1 + purchases // 3_000
    targets = [chance.choice(SERVERS)] if purchases < _SHORT_RUN else list(SERVERS) * rounds
    return [
        Incident(0, What.KILL, target, seconds=round(chance.uniform(0.2, 3.0), 1))
        for target in targets
    ]


def _pauses(chance: random.Random, purchases: int) -> list[Incident]:
    """Pause services for up to ten seconds, the broker or Redis for some."""
    longest = 4.0 if purchases < _SHORT_RUN else 10.0
    drawn = []
    for _ in range(1 + min(4, purchases // 1_000)):
        service = chance.choice(SERVICES)
        seconds = round(chance.uniform(longest / 2, longest), 1)
        drawn.append(Incident(0, What.PAUSE, service, seconds))
        server = chance.choice(("redis", "amqp"))
        drawn.append(Incident(0, What.PAUSE, server, round(chance.uniform(1.0, 4.0), 1)))
    return drawn


def _rolling_restarts(purchases: int) -> list[Incident]:
    rounds = (purchases >= _ROLLING_FROM) + purchases // 5_000
    return [Incident(0, What.RESTART, EVERY_SERVICE)] * rounds


def _draw_rules(chance: random.Random, purchases: int) -> tuple[Rule, ...]:
    """Draw a rule or more of every kind; in short runs more often, so that they are met at all."""
    share = min(0.03, max(0.006, 5.0 / max(1, purchases)))

    def rate(weight: float = 1.0) -> int:
        return int(PPM * share * weight * chance.uniform(0.6, 1.4))

    def delay(least: int, most: int) -> int:
        return chance.randint(least, most)

    rules = [
        *(
            Rule(f"{kind.lower()}.{party}", kind, rate(weight), party)
            for kind, weight in (
                ("DECLINE", 1.0),
                ("ANSWER_LOST_BEFORE", 0.5),
                ("ANSWER_LOST_AFTER", 1.0),
                ("CALLBACK_DOUBLE", 1.5),
                ("CALLBACK_EARLY", 1.0),
                ("CALLBACK_REORDERED", 1.0),
                ("CALLBACK_CONTRADICTORY", 1.0),
                ("CALLBACK_WRONG_AMOUNT", 1.0),
                ("CALLBACK_WRONG_SIGNATURE", 1.0),
                ("CALLBACK_UNKNOWN_REFERENCE", 0.5),
                ("WRONG_AMOUNT", 1.0),
                # There are few refunds to refuse.
                ("REFUND_REFUSED", 10.0),
            )
            for party in PARTIES
        ),
        *(
            Rule(
                f"callback_late.{party}", "CALLBACK_LATE", rate(), party, delay_ms=delay(800, 4000)
            )
            for party in PARTIES
        ),
        *(
            Rule(f"slow.{party}", "SLOW", rate(2.0), party, delay_ms=delay(200, 2500))
            for party in PARTIES
        ),
        # The commonest price of the shop: a party may well be slow with one product.
        Rule("slow.one_price", "SLOW", PPM // 4, amount_minor=1177, delay_ms=delay(100, 800)),
        *(
            Rule(
                f"outage.{party}",
                "OUTAGE",
                rate(0.5),
                party,
                delay_ms=delay(1000, 4000),
                hits_max=1 + purchases // 1_000,
            )
            for party in PARTIES
        ),
        *(
            Rule(f"{verb}_lost.{party}", "ANSWER_LOST_AFTER", rate(2.0), party, verb)
            for verb, party in (("refund", "alipay"), ("refund", "unionpay"), ("close", "alipay"))
        ),
    ]
    if purchases >= _SHORT_RUN:
        # Slower than anybody waits for it: done, but never answered in time.
        rules.append(
            Rule("slow.beyond", "SLOW", rate(0.3), verb="pay", delay_ms=12_000, hits_max=3)
        )
    return tuple(rules)
