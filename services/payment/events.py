"""What payment tells, and what it listens to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from paymesh.channel.v1 import ChannelRefundChanged, ChargeChanged
from paymesh.payment.v1 import (
    PaymentFailed,
    PaymentReturned,
    PaymentSucceeded,
    RefundFailed,
    RefundSucceeded,
    RefundWaiting,
)

from common.clock import Clock
from common.context import CallContext
from common.db.types import Connection
from common.events.consumer import AfterCommit
from common.events.event import Event, NewEvent
from common.ids import derive
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from services.payment.convert import payment_to_proto, refund_to_proto
from services.payment.domain.payments import Payment, Refund
from services.payment.store import ADVANCE_PAYMENT, ADVANCE_REFUND, new_job

BINDINGS = ("channel.charge.changed.v1", "channel.refund.changed.v1")
"""What payment listens to."""


def payment_succeeded(payment: Payment, call: CallContext, at: datetime) -> NewEvent:
    """`payment.payment.succeeded.v1`."""
    body = PaymentSucceeded(
        payment=payment_to_proto(payment, at),
        net_minor=payment.net_minor,
        order_type=payment.order_type,
    )
    return _payment_event(
        "payment.payment.succeeded.v1", payment, body.SerializeToString(), call, at
    )


def payment_failed(payment: Payment, call: CallContext, at: datetime) -> NewEvent:
    """`payment.payment.failed.v1`, also for a closed payment."""
    body = PaymentFailed(payment=payment_to_proto(payment, at))
    return _payment_event("payment.payment.failed.v1", payment, body.SerializeToString(), call, at)


def payment_returned(payment: Payment, call: CallContext, at: datetime) -> NewEvent:
    """`payment.payment.returned.v1`."""
    body = PaymentReturned(payment=payment_to_proto(payment, at))
    return _payment_event(
        "payment.payment.returned.v1", payment, body.SerializeToString(), call, at
    )


def refund_succeeded(refund: Refund, call: CallContext, at: datetime) -> NewEvent:
    """`payment.refund.succeeded.v1`."""
    body = RefundSucceeded(
        refund=refund_to_proto(refund),
        order_id=refund.order_id,
        merchant_id=refund.owner.merchant_id,
    )
    return _refund_event("payment.refund.succeeded.v1", refund, body.SerializeToString(), call, at)


def refund_failed(refund: Refund, call: CallContext, at: datetime) -> NewEvent:
    """`payment.refund.failed.v1`."""
    body = RefundFailed(refund=refund_to_proto(refund), order_id=refund.order_id)
    return _refund_event("payment.refund.failed.v1", refund, body.SerializeToString(), call, at)


def refund_waiting(refund: Refund, call: CallContext, at: datetime) -> NewEvent:
    """`payment.refund.waiting.v1`."""
    body = RefundWaiting(refund=refund_to_proto(refund), order_id=refund.order_id)
    return _refund_event("payment.refund.waiting.v1", refund, body.SerializeToString(), call, at)


def _payment_event(
    kind: str, payment: Payment, payload: bytes, call: CallContext, at: datetime
) -> NewEvent:
    story, day = payment.biz_trace_id, payment.business_date
    return _event(kind, payment.id, payment.version, payload, story, day, call, at)


def _refund_event(
    kind: str, refund: Refund, payload: bytes, call: CallContext, at: datetime
) -> NewEvent:
    story, day = refund.biz_trace_id, refund.business_date
    return _event(kind, refund.id, refund.version, payload, story, day, call, at)


def _event(
    kind: str,
    noun_id: str,
    version: int,
    payload: bytes,
    biz_trace_id: str,
    business_date: str,
    call: CallContext,
    at: datetime,
) -> NewEvent:
    return NewEvent(
        # Derived, so that a repeat of the same change tells the same event.
        event_id=derive("evt", noun_id, kind, version),
        type=kind,
        aggregate_id=noun_id,
        aggregate_version=version,
        payload=payload,
        principal=call.principal,
        biz_trace_id=biz_trace_id,
        causation_id=call.causation_id,
        business_date=date.fromisoformat(business_date) if business_date else None,
        occurred_at=at,
    )


class ChannelNews:
    """Hears that a channel has news, and wakes the job that asks for them."""

    def __init__(self, jobs: Jobs, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock

    async def handle(
        self, connection: Connection, events: Sequence[Event]
    ) -> Sequence[AfterCommit]:
        """Let the jobs of the payments and refunds be due; runs in the inbox's transaction."""
        now = self._clock.now()
        wanted: dict[str, list[str]] = {ADVANCE_PAYMENT: [], ADVANCE_REFUND: []}
        late: dict[tuple[str, str], NewJob] = {}
        for event in events:
            kind, key = _subject(event)
            wanted[kind].append(key)
            # A payment that had ended has no job any more; late news needs a new one.
            late[kind, key] = new_job(kind, key, now, event.call("channel"), event.event_id)
        for kind, keys in wanted.items():
            if keys:
                await self._jobs.hasten(connection, kind, keys)
        await self._jobs.add(connection, list(late.values()))
        return [self._wake]

    async def _wake(self) -> None:
        self._jobs.notify()


def _subject(event: Event) -> tuple[str, str]:
    if event.type == "channel.charge.changed.v1":
        return ADVANCE_PAYMENT, ChargeChanged.FromString(event.payload).charge.payment_id
    subject = ChannelRefundChanged.FromString(event.payload).refund.subject_id
    # A payment whose money goes back by itself is its own subject.
    return (ADVANCE_PAYMENT if subject.startswith("pay_") else ADVANCE_REFUND), subject
