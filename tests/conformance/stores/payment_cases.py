"""Payments, refunds and exceptions on one side, and what cases do to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from common.audit import AuditEntry
from common.context import ActorType, CallContext, Mode, Principal
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import derive
from common.jobs.jobs import Jobs
from common.money import Money
from services.payment.domain.exceptions import (
    Deadlines,
    ExceptionKind,
    PaymentException,
    new_exception,
)
from services.payment.domain.payments import Owner, Payment, PaymentForm, Refund
from services.payment.domain.states import PaymentState, RefundState
from services.payment.events import Announcements, payment_failed, payment_succeeded
from services.payment.store.exceptions import ExceptionChange, ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.reading import ReadingStore
from services.payment.store.refunds import RefundStore
from services.payment.store.rows import Change, Intent, RefundChange
from tests.conformance.stores.trade_cases import IDS, START, SetClock
from tests.conformance.stores.twins import Side

CALL = CallContext(
    principal=Principal(
        mode=Mode.TEST, merchant_id="mer_1", actor_type=ActorType.SERVICE, actor_id="payment"
    ),
    biz_trace_id="biz_case",
    causation_id="request",
)
OWNER = Owner("default", "TEST", "mer_1", "MERCHANT:key_1")
DEADLINES = Deadlines(first_seconds=3600, repeats_max=2)


@dataclass
class PaymentSide:
    """The payment service's stores on one side."""

    side: Side
    clock: SetClock = field(default_factory=SetClock)
    parent: str = field(default_factory=lambda: IDS.new("tst"))

    def __post_init__(self) -> None:
        pool, outbox, jobs = self.side.pool, Outbox(), Jobs()
        self.pool = pool
        self.exceptions = ExceptionStore(pool, outbox, jobs, Announcements())
        self.payments = PaymentStore(pool, outbox, jobs, self.exceptions)
        self.refunds = RefundStore(pool, outbox, jobs, self.exceptions)
        self.reading = ReadingStore(pool)

    def payment_id(self, number: int) -> str:
        """The id of a payment of the case."""
        return derive("pay", self.parent, number)

    def refund_id(self, number: int) -> str:
        """The id of a refund of the case."""
        return derive("rfd", self.parent, number)

    def payment(self, number: int, **changes: Any) -> Payment:
        """A payment as its intent is written."""
        made = Payment(
            id=self.payment_id(number),
            order_id=derive("trd", self.parent, number % 3),
            owner=OWNER,
            product="qr_pay",
            form=PaymentForm.TRANSFER,
            state=PaymentState.PENDING,
            amount=Money("USD", 1000),
            user_id="",
            card_id="",
            bank_code="",
            order_type="purchase",
            biz_trace_id="biz_case",
            created_at=START + timedelta(seconds=number),
            expires_at=START + timedelta(hours=2),
            channel="alipay",
            channel_reason="cheapest",
            risk_verdict="PASS",
            risk_rules=("amount", "velocity"),
            fee_minor=6,
            fee_returned_on_refund=True,
            subject="two records",
            request_id=f"request-{number}",
        )
        return replace(made, **changes)

    def intent(self, payment: Payment) -> Intent:
        """The intent of a payment."""
        events: tuple[NewEvent, ...] = ()
        if payment.state is PaymentState.FAILED:
            events = (payment_failed(payment, CALL, START),)
        return Intent(payment, CALL, START + timedelta(seconds=60), events)

    def change(self, before: Payment, *path: PaymentState, **others: Any) -> Change:
        """A payment's way through states."""
        own = ("channel", "attempt", "way_out", "late_returns")
        fields = {name: others.pop(name) for name in own if name in others}
        after = before.moved(*path, **fields) if path else replace(before, **fields)
        if not path:
            after = replace(after, version=before.version + 1)
        at = self.clock.now()
        events: tuple[NewEvent, ...] = ()
        if after.state is PaymentState.SUCCEEDED:
            events = (payment_succeeded(after, CALL, at),)
        return Change(before, after, path, "the channel said so", CALL, at, events, **others)

    def refund(self, number: int, payment: int, amount_minor: int = 100) -> Refund:
        """A refund as it is asked for."""
        return Refund(
            id=self.refund_id(number),
            payment_id=self.payment_id(payment),
            order_id=derive("trd", self.parent, payment % 3),
            owner=OWNER,
            state=RefundState.PENDING,
            amount=Money("USD", amount_minor),
            fee_returned_minor=0,
            biz_trace_id="biz_case",
            created_at=self.clock.now(),
            reason="broken",
        )

    def refund_change(self, before: Refund, *path: RefundState, **others: Any) -> RefundChange:
        """A refund's way through states."""
        return RefundChange(
            before, before.moved(*path), path, "moved", CALL, self.clock.now(), **others
        )

    def exception(
        self, subject: Payment | Refund, kind: ExceptionKind, occasion: str = "1"
    ) -> PaymentException:
        """An exception about a payment or refund."""
        return new_exception(
            kind,
            subject,
            DEADLINES,
            self.clock.now(),
            occasion=occasion,
            detail="looks wrong",
            amount=Money("USD", 1000),
            channel="alipay",
        )

    def move(self, before: PaymentException, after: PaymentException, **others: Any) -> Any:
        """A move of an exception, as a person makes it."""
        entry = AuditEntry(
            principal=CALL.principal,
            role="operator",
            action="payment.exception",
            subject=before.id,
            at=self.clock.now(),
            reason="as agreed",
        )
        return ExceptionChange(
            before, after, "as agreed", CALL, self.clock.now(), audit=entry, **others
        )
