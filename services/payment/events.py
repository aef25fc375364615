"""What payment tells, and what it listens to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime

from paymesh.channel.v1 import CallbackQuestioned, ChannelRefundChanged, ChargeChanged
from paymesh.payment.v1 import (
    ExceptionOpened,
    ExceptionResolved,
    PaymentConflicted,
    PaymentFailed,
    PaymentReturned,
    PaymentSucceeded,
    PaymentUnclaimed,
    RefundFailed,
    RefundSucceeded,
    RefundWaiting,
)

from common.clock import Clock
from common.context import CallContext, Mode
from common.db.types import Connection
from common.events.consumer import AfterCommit
from common.events.event import Event, NewEvent
from common.ids import derive
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from common.money import Money
from services.payment.convert import exception_to_proto, payment_to_proto, refund_to_proto
from services.payment.domain.exceptions import (
    Deadlines,
    ExceptionKind,
    ExceptionState,
    PaymentException,
    exception_id,
)
from services.payment.domain.payments import Owner, Payment, Refund
from services.payment.store.exceptions import ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.refunds import RefundStore
from services.payment.store.rows import ADVANCE_PAYMENT, ADVANCE_REFUND, new_job

_QUESTIONED = "channel.callback.questioned.v1"
BINDINGS = ("channel.charge.changed.v1", "channel.refund.changed.v1", _QUESTIONED)
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


def payment_conflicted(payment: Payment, call: CallContext, at: datetime) -> NewEvent:
    """`payment.payment.conflicted.v1`."""
    body = PaymentConflicted(payment=payment_to_proto(payment, at)).SerializeToString()
    return _payment_event("payment.payment.conflicted.v1", payment, body, call, at)


def payment_unclaimed(payment: Payment, call: CallContext, at: datetime) -> NewEvent:
    """`payment.payment.unclaimed.v1`."""
    body = PaymentUnclaimed(payment=payment_to_proto(payment, at)).SerializeToString()
    return _payment_event("payment.payment.unclaimed.v1", payment, body, call, at)


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


class Announcements:
    """Makes the events of exceptions."""

    def exception_opened(
        self, exception: PaymentException, call: CallContext, at: datetime
    ) -> NewEvent:
        """`payment.exception.opened.v1`."""
        body = ExceptionOpened(exception=exception_to_proto(exception)).SerializeToString()
        return _exception_event("payment.exception.opened.v1", exception, body, call, at)

    def exception_resolved(
        self, exception: PaymentException, call: CallContext, at: datetime
    ) -> NewEvent:
        """`payment.exception.resolved.v1`."""
        body = ExceptionResolved(exception=exception_to_proto(exception)).SerializeToString()
        return _exception_event("payment.exception.resolved.v1", exception, body, call, at)


def _exception_event(
    kind: str, exception: PaymentException, payload: bytes, call: CallContext, at: datetime
) -> NewEvent:
    story = exception.biz_trace_id
    return _event(kind, exception.id, exception.version, payload, story, "", call, at)


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
    """Hears what channels tell: wakes the job that asks, and opens what a person looks at."""

    def __init__(
        self,
        jobs: Jobs,
        exceptions: ExceptionStore,
        payments: PaymentStore,
        refunds: RefundStore,
        deadlines: Deadlines,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._exceptions = exceptions
        self._payments = payments
        self._refunds = refunds
        self._deadlines = deadlines
        self._clock = clock

    async def handle(
        self, connection: Connection, events: Sequence[Event]
    ) -> Sequence[AfterCommit]:
        """Let the jobs of the payments and refunds be due; runs in the inbox's transaction."""
        now = self._clock.now()
        wanted: dict[str, list[str]] = {ADVANCE_PAYMENT: [], ADVANCE_REFUND: []}
        late: dict[tuple[str, str], NewJob] = {}
        for event in events:
            if event.type == _QUESTIONED:
                await self._question(connection, event, now)
                continue
            kind, key = _subject(event)
            wanted[kind].append(key)
            # A payment that had ended has no job any more; late news needs a new one.
            late[kind, key] = new_job(kind, key, now, event.call("channel"), event.event_id)
        for kind, keys in wanted.items():
            if keys:
                await self._jobs.hasten(connection, kind, keys)
        await self._jobs.add(connection, list(late.values()))
        return [self._wake]

    async def _question(self, connection: Connection, event: Event, now: datetime) -> None:
        """A truly signed callback denies what is known, or tells of what was never asked for."""
        told = CallbackQuestioned.FromString(event.payload)
        is_orphan = told.verdict == "ORPHAN"
        kind = (
            ExceptionKind.CALLBACK_UNKNOWN_REFERENCE
            if is_orphan
            else ExceptionKind.CALLBACK_CONTRADICTION
        )
        payment_id = told.subject_id if told.subject_id.startswith("pay_") else ""
        if told.subject_id.startswith("rfd_"):
            refund = await self._refunds.find_refund_in(connection, told.subject_id)
            payment_id = refund.payment_id if refund else ""
        call = event.call("channel")
        if is_orphan:
            payment = await self._find_named(connection, told)
            if payment is not None:
                payment_id, call = payment.id, _in_world_of(payment, call)
        principal = call.principal
        exception = PaymentException(
            id=exception_id(kind, told.callback_id, "heard"),
            kind=kind,
            state=ExceptionState.OPEN,
            owner=Owner(principal.tenant_id, str(principal.mode), principal.merchant_id, ""),
            subject_id=told.callback_id,
            payment_id=payment_id,
            channel=told.channel,
            amount=_money_of(told),
            detail=_words(told, payment_id),
            occasion="heard",
            default_action=self._deadlines.default_action(kind, 0),
            due_at=self._deadlines.due_at(now, 0),
            biz_trace_id=call.biz_trace_id,
            created_at=now,
            updated_at=now,
        )
        await self._exceptions.open_in(connection, [exception], call, now)

    async def _find_named(self, connection: Connection, told: CallbackQuestioned) -> Payment | None:
        """Return the payment that an orphan names, though it was never asked of this channel.

        A refund that nobody asked us for, or a reference that was given to another channel.
        """
        for reference in (told.payment_reference, told.reference):
            found = await self._payments.find_payment_of_reference(connection, reference)
            if found is not None:
                return found
        return None

    async def _wake(self) -> None:
        self._jobs.notify()


def _money_of(told: CallbackQuestioned) -> Money | None:
    if not told.HasField("money") or not told.money.currency_code:
        return None
    return Money(told.money.currency_code, told.money.amount_minor)


def _in_world_of(payment: Payment, call: CallContext) -> CallContext:
    """Return what a channel tells as of a payment's world and story: it has none of its own."""
    owner = payment.owner
    principal = replace(
        call.principal,
        tenant_id=owner.tenant_id,
        mode=Mode(owner.mode),
        merchant_id=owner.merchant_id,
    )
    return replace(call, principal=principal, biz_trace_id=payment.biz_trace_id)


def _words(told: CallbackQuestioned, payment_id: str) -> str:
    about = told.subject_id
    if not about and payment_id:
        about = f"nothing that we asked of this channel, though it names {payment_id}"
    # No row of ours says whose it is, and channels have no principal of their own.
    about = about or "nothing that we asked for, so its tenant and mode are not known"
    code = f" ({told.raw_code})" if told.raw_code else ""
    return f"a callback tells {told.told_state or 'something'}{code} of {told.reference}: {about}"


def _subject(event: Event) -> tuple[str, str]:
    if event.type == "channel.charge.changed.v1":
        return ADVANCE_PAYMENT, ChargeChanged.FromString(event.payload).charge.payment_id
    subject = ChannelRefundChanged.FromString(event.payload).refund.subject_id
    # A payment whose money goes back by itself is its own subject.
    return (ADVANCE_PAYMENT if subject.startswith("pay_") else ADVANCE_REFUND), subject
