"""Webhooks, their deliveries, and what becomes of a delivery after an attempt."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WEBHOOK_TYPES: Final = (
    "order.completed",
    "order.closed",
    "payment.failed",
    "payment.conflicted",
    "payment.returned",
    "payment.unclaimed",
    "refund.completed",
    "refund.failed",
    "refund.waiting",
)
"""What merchants can hear of."""

_MINUTE: Final = 60
_HOUR: Final = 3600
RETRY_DELAYS_SECONDS: Final = (
    0,
    15,
    15,
    30,
    3 * _MINUTE,
    10 * _MINUTE,
    20 * _MINUTE,
    30 * _MINUTE,
    30 * _MINUTE,
    30 * _MINUTE,
    _HOUR,
    3 * _HOUR,
    3 * _HOUR,
    3 * _HOUR,
    6 * _HOUR,
    6 * _HOUR,
)
"""Before each attempt, from the one before: WeChat Pay's schedule, a day and a few hours in all."""

ATTEMPTS_MAX: Final = len(RETRY_DELAYS_SECONDS)

JITTER: Final = 0.1
"""Share of each delay that is left to chance, to either side: a server that was down should not
get everything at one instant."""

RETRY_AFTER_MAX: Final = timedelta(hours=24)
"""A longer pause that a server asks for is cut to this."""

_GONE: Final = 410
_BUSY: Final = frozenset({408, 425, 429})


class DeliveryState(enum.StrEnum):
    """How far a delivery is."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    PARKED = "PARKED"


MOVES: Final[Mapping[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERED, DeliveryState.PARKED}),
    # Sent again by hand.
    DeliveryState.DELIVERED: frozenset({DeliveryState.PENDING}),
    DeliveryState.PARKED: frozenset({DeliveryState.PENDING}),
}
"""Which state follows which."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose it is, and in which world."""

    tenant_id: str
    mode: str
    merchant_id: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address for webhooks, without its secret."""

    id: str
    owner: Owner
    url: str
    types: tuple[str, ...]
    """Empty: all."""
    disabled: bool
    created_at: datetime

    def wants(self, webhook_type: str) -> bool:
        """Say whether it hears of webhooks of a type."""
        return not self.types or webhook_type in self.types


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is told, the same to every address."""

    id: str
    owner: Owner
    type: str
    subject_id: str
    biz_trace_id: str
    body: str
    cause: str
    """The event."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook on its way to one address."""

    id: str
    webhook_id: str
    endpoint_id: str
    owner: Owner
    type: str
    subject_id: str
    biz_trace_id: str
    state: DeliveryState
    attempts: int
    last_http_status: int
    next_attempt_at: datetime | None
    created_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that this process is to send now."""

    delivery_id: str
    version: int
    attempts: int
    """Before this one, in all."""
    tries: int
    """Before this one, since it was made or sent again by hand: its place in the schedule."""
    webhook_id: str
    endpoint_id: str
    url: str
    sealed_secret: bytes
    is_endpoint_disabled: bool
    body: str
    biz_trace_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt brought."""

    http_status: int = 0
    """0 when none was answered."""
    problem: str = ""
    """Why none was, in a word."""
    retry_after: timedelta | None = None
    """The pause that the server asks for."""
    took_ms: int = 0

    @property
    def is_delivered(self) -> bool:
        """The server took it."""
        return 200 <= self.http_status < 300

    @property
    def is_gone(self) -> bool:
        """The address wants no webhooks any more (Standard Webhooks: 410)."""
        return self.http_status == _GONE

    @property
    def is_up(self) -> bool:
        """Whatever it thinks of this webhook, the server works."""
        return 0 < self.http_status < 500 and self.http_status not in _BUSY


@dataclass(frozen=True, slots=True)
class Outcome:
    """A delivery after an attempt, to be written if it has not changed meanwhile."""

    claim: Claim
    answer: Answer | None
    """None when it was not sent, because its address is switched off."""
    state: DeliveryState
    next_attempt_at: datetime | None
    at: datetime

    @property
    def attempts(self) -> int:
        """Attempts in all, with this one."""
        return self.claim.attempts + (self.answer is not None)

    @property
    def reason(self) -> str:
        """Why its state changes, in a few words."""
        if self.answer is None:
            return "address switched off"
        return self.answer.problem or f"HTTP {self.answer.http_status}"


def conclude(claim: Claim, answer: Answer | None, at: datetime, chance: float) -> Outcome:
    """Return what becomes of a delivery; `chance` (0 … 1) spreads the next attempt."""
    if answer is not None and answer.is_delivered:
        return Outcome(claim, answer, DeliveryState.DELIVERED, None, at)
    tries = claim.tries + 1
    if answer is None or answer.is_gone or tries >= ATTEMPTS_MAX:
        return Outcome(claim, answer, DeliveryState.PARKED, None, at)
    seconds = RETRY_DELAYS_SECONDS[tries] * (1 + JITTER * (2 * chance - 1))
    delay = timedelta(seconds=seconds)
    if answer.retry_after is not None:
        delay = max(delay, min(answer.retry_after, RETRY_AFTER_MAX))
    return Outcome(claim, answer, DeliveryState.PENDING, at + delay, at)
