"""What every flow of payment is given by wiring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from common.clock import Clock
from common.context import ActorType, CallContext, Mode, Principal, current
from services.payment.config import PaymentSettings
from services.payment.domain.exceptions import Deadlines, PaymentException
from services.payment.domain.payments import Owner, Payment, Refund
from services.payment.domain.plans import Product
from services.payment.peers import Peers
from services.payment.store.exceptions import ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.refunds import RefundStore
from services.payment.writer import PaymentWriter


@dataclass(frozen=True)
class Parts:
    """The parts that flows are made of."""

    store: PaymentStore
    refunds: RefundStore
    exceptions: ExceptionStore
    writer: PaymentWriter
    peers: Peers
    clock: Clock
    settings: PaymentSettings
    products: Mapping[str, Product]

    @property
    def deadlines(self) -> Deadlines:
        """How long exceptions wait."""
        settings = self.settings
        return Deadlines(settings.exception_due_seconds, settings.exception_repeats_max)

    def first_question_at(self, now: datetime) -> datetime:
        """Return when the janitor asks about something that was just begun."""
        return now + timedelta(seconds=self.settings.janitor_first_seconds)

    def next_question_at(self, now: datetime, begun_at: datetime) -> datetime:
        """Return when the janitor asks again: pauses grow with the age of what it asks about."""
        age = max(0.0, (now - begun_at).total_seconds())
        pause = max(self.settings.janitor_first_seconds, age)
        return now + timedelta(seconds=min(pause, self.settings.janitor_longest_seconds))


def call_of(row: Payment | Refund | PaymentException) -> CallContext:
    """Return the circumstances of a change to a row: its owner's world, its story, who acts now."""
    call = current()
    return replace(call, principal=_principal_of(row.owner, call), biz_trace_id=row.biz_trace_id)


def _principal_of(owner: Owner, call: CallContext) -> Principal:
    acting = call.principal
    return replace(
        acting,
        tenant_id=owner.tenant_id,
        mode=Mode(owner.mode),
        merchant_id=owner.merchant_id,
        actor_type=acting.actor_type or ActorType.SERVICE,
        actor_id=acting.actor_id or "payment",
    )
