"""The janitor's question: what became of a payment that has not ended?

Run by a job at growing intervals, and at once when a channel has news. Asks the other side under
the ids that were sent, and goes on from the answer; nothing is guessed.
"""

from __future__ import annotations

from typing import Final

from common.context import bound
from services.payment.domain.payments import Payment
from services.payment.domain.states import (
    PAYMENT_OPEN,
    PAYMENT_OVER,
    PAYMENT_RETURN_ENDED,
    PaymentState,
)
from services.payment.flows.book_late_return import book_late_returns
from services.payment.flows.collect_payment import apply_news, collect_from_ledger
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.return_payment import give_back
from services.payment.flows.save_payment import reporting_refusals
from services.payment.flows.settle_payment import settle

# What a channel may still turn into a success; NOT_FOUND too, as long as it has not ended there.
_UNDER_WAY: Final = frozenset({"PENDING", "UNKNOWN", "NOT_FOUND"})


async def advance_payment(parts: Parts, payment_id: str) -> Payment | None:
    """Bring a payment as far as it goes now; return it, or None when there is none.

    One that was given back, or kept for its payer, is asked about too: the channel may have given
    it back once more.

    Raises PaymeshError when a peer cannot be reached: the job comes back.
    """
    payment = await parts.store.find_payment(payment_id)
    if payment is None or payment.state is PaymentState.SUCCEEDED:
        return payment
    with bound(call_of(payment)):
        async with reporting_refusals(parts, payment):
            return await _advance(parts, payment)


async def _advance(parts: Parts, payment: Payment) -> Payment:
    if payment.state is PaymentState.RECEIVED:
        return await settle(parts, payment)
    if payment.state is PaymentState.RETURNING:
        payment = await give_back(parts, payment)
    if payment.state in PAYMENT_RETURN_ENDED:
        return await book_late_returns(parts, payment)
    if payment.state is PaymentState.RETURNING:
        return payment
    if payment.state is PaymentState.CONFLICTED:
        return payment  # its exception brings it on, by a person's decision or at the deadline
    if payment.is_internal:
        if payment.state in PAYMENT_OPEN:
            await parts.peers.open_platform_accounts(payment)
            return await collect_from_ledger(parts, payment)
        return payment
    if payment.state in PAYMENT_OPEN and await _is_of_no_use(parts, payment):
        return await apply_news(parts, payment, await parts.peers.close_charge(payment))
    return await apply_news(parts, payment, await parts.peers.query_charge(payment))


async def is_payment_under_way(parts: Parts, payment: Payment) -> bool:
    """Say whether a payment that people let fail may still be taken at its channel.

    Raises PaymeshError when nobody answers: the job comes back.
    """
    if payment.state is not PaymentState.FAILED or payment.is_internal:
        return False
    if payment.failure is None or not payment.failure.is_by_decision:
        return False
    return (await parts.peers.query_charge(payment)).state in _UNDER_WAY


async def _is_of_no_use(parts: Parts, payment: Payment) -> bool:
    """Say whether an open payment could only be paid too late, or twice."""
    if payment.expires_at <= parts.clock.now():
        return True
    siblings = await parts.store.find_payments_of_order(payment.order_id)
    return any(one.state is PaymentState.SUCCEEDED for one in siblings)


async def close_payment(parts: Parts, payment: Payment) -> Payment:
    """Close an open payment at its channel; it may turn out to have succeeded."""
    if payment.state in PAYMENT_OVER:
        return payment
    with bound(call_of(payment)):
        async with reporting_refusals(parts, payment):
            if payment.is_internal or payment.state not in PAYMENT_OPEN:
                return await _advance(parts, payment)
            return await apply_news(parts, payment, await parts.peers.close_charge(payment))
