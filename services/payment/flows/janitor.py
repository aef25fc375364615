"""Jobs of payment: each asks about one payment, refund or exception until it has ended."""

from __future__ import annotations

from datetime import datetime

from common.errors import PaymeshError
from common.jobs.job import Again, Done, Job, Result
from services.payment.domain.exceptions import ExceptionState
from services.payment.domain.payments import Payment
from services.payment.domain.states import (
    PAYMENT_ENDED,
    PAYMENT_RETURN_ENDED,
    REFUND_ENDED,
    PaymentState,
)
from services.payment.flows.advance_payment import advance_payment, is_payment_under_way
from services.payment.flows.book_late_refund import is_refund_under_way
from services.payment.flows.book_late_return import is_under_way
from services.payment.flows.carry_out import carry_out
from services.payment.flows.parts import Parts
from services.payment.flows.refund_payment import advance_refund_by_id
from services.payment.flows.save_payment import report_unknown


class Janitor:
    """Handlers of the three kinds of job."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ask_about_payment(self, job: Job) -> Result:
        """Bring a payment further; come back later while it has not ended."""
        try:
            payment = await advance_payment(self._parts, job.key)
        except PaymeshError:
            payment = await self._parts.store.find_payment(job.key)
            if payment is not None:
                await report_unknown(self._parts, payment)
            raise
        if payment is None or payment.state in PAYMENT_ENDED:
            return await self._end(payment)
        if payment.state is PaymentState.CONFLICTED:
            return Done()  # its exception has a job of its own
        await report_unknown(self._parts, payment)
        return self._later(payment.created_at, str(payment.state))

    async def _end(self, payment: Payment | None) -> Result:
        """Ask no more, unless an attempt to take or give back the money is on its way."""
        if payment is None:
            return Done()
        if payment.state in PAYMENT_RETURN_ENDED and await is_under_way(self._parts, payment):
            return self._later(payment.created_at, "an attempt to give it back has not ended")
        if await is_payment_under_way(self._parts, payment):
            return self._later(payment.created_at, "it was let fail, and the channel has not ended")
        return Done()

    async def ask_about_refund(self, job: Job) -> Result:
        """Bring a refund further; come back later while it has not ended."""
        try:
            refund = await advance_refund_by_id(self._parts, job.key)
        except PaymeshError:
            refund = await self._parts.refunds.find_refund(job.key)
            if refund is not None:
                await report_unknown(self._parts, refund)
            raise
        if refund is None:
            return Done()
        if refund.state in REFUND_ENDED:
            if not await is_refund_under_way(self._parts, refund):
                return Done()
            return self._later(refund.created_at, "it was let fail, and the channel has not ended")
        await report_unknown(self._parts, refund)
        return self._later(refund.created_at, str(refund.state))

    async def carry_out_exception(self, job: Job) -> Result:
        """Carry out what is decided, or the default action at the deadline."""
        exception = await carry_out(self._parts, job.key)
        if exception is None or exception.state is ExceptionState.RESOLVED:
            return Done()
        if exception.state is ExceptionState.APPROVED:
            return self._later(exception.updated_at, f"{exception.action} is under way")
        pause = (exception.due_at - self._parts.clock.now()).total_seconds()
        return Again(max(pause, 0.0), f"{exception.state} until its deadline", is_fresh=True)

    def _later(self, begun_at: datetime, state: str) -> Again:
        now = self._parts.clock.now()
        pause = (self._parts.next_question_at(now, begun_at) - now).total_seconds()
        return Again(pause, state, is_fresh=True)
