"""Jobs of payment: each asks about one payment or refund until it has ended."""

from __future__ import annotations

from datetime import datetime

from common.jobs.job import Again, Done, Job, Result
from services.payment.domain.states import PAYMENT_ENDED, REFUND_ENDED, PaymentState
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.parts import Parts
from services.payment.flows.refund_payment import advance_refund_by_id


class Janitor:
    """Handlers of the two kinds of job."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ask_about_payment(self, job: Job) -> Result:
        """Bring a payment further; come back later while it has not ended."""
        payment = await advance_payment(self._parts, job.key)
        if payment is None or payment.state in PAYMENT_ENDED:
            return Done()
        if payment.state is PaymentState.CONFLICTED:
            return Done()  # it is on the list of what a person decides
        return self._later(payment.created_at, str(payment.state))

    async def ask_about_refund(self, job: Job) -> Result:
        """Bring a refund further; come back later while it has not ended."""
        refund = await advance_refund_by_id(self._parts, job.key)
        if refund is None or refund.state in REFUND_ENDED:
            return Done()
        return self._later(refund.created_at, str(refund.state))

    def _later(self, begun_at: datetime, state: str) -> Again:
        now = self._parts.clock.now()
        pause = (self._parts.next_question_at(now, begun_at) - now).total_seconds()
        return Again(pause, state, is_fresh=True)
