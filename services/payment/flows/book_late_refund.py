"""A refund had failed, and the channel gave the money back all the same: book what happened.

The holds were released and the cap is free again, so the merchant keeps its money and nobody stands
for what went out: it is a loss until people have agreed on it. The refund stays FAILED.
"""

from __future__ import annotations

from dataclasses import replace

from services.payment.domain.exceptions import ExceptionKind, new_exception
from services.payment.domain.payments import ON_ITS_WAY, Payment, Refund
from services.payment.domain.postings import late_chain
from services.payment.domain.states import RefundState
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import book
from services.payment.peers import AccountNames
from services.payment.store.rows import RefundChange


async def book_late_refund(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    """Ask about a refund that has failed; book it and open its exception when the money went back.

    Safe to repeat: the transfer's id is the refund's, and the row is marked with the exception.
    Raises PaymeshError when the channel or the ledger cannot be asked: the job comes back.
    """
    if refund.is_late or payment.is_internal:
        return refund
    if (await parts.peers.ask_refund(refund.id, refund.amount)).state != "SUCCEEDED":
        return refund
    currency = refund.amount.currency_code
    await parts.peers.open_platform_accounts(payment, currency, "loss")
    booked = await book(parts, late_chain(payment, refund, AccountNames(payment)), currency, "late")
    change = _change(parts, payment, refund, booked.business_date)
    if await parts.refunds.save_refund(change):
        return change.after
    found = await parts.refunds.find_refund(refund.id) or refund
    # Whoever was first has marked it too, or changed something else and did not know.
    return found if found.is_late else await book_late_refund(parts, payment, found)


async def is_refund_under_way(parts: Parts, refund: Refund) -> bool:
    """Say whether a refund that people let fail may still bring the money back.

    Raises PaymeshError when nobody answers: the job comes back.
    """
    if refund.failure is None or not refund.failure.is_by_decision:
        return False
    if refund.state is not RefundState.FAILED or refund.is_late:
        return False
    return (await parts.peers.ask_refund(refund.id, refund.amount)).state in ON_ITS_WAY


def _change(parts: Parts, payment: Payment, refund: Refund, business_date: str) -> RefundChange:
    now = parts.clock.now()
    words = f"{payment.channel} gave the money back after the refund had failed"
    exception = new_exception(
        ExceptionKind.REFUND_AFTER_FAILURE,
        refund,
        parts.deadlines,
        now,
        occasion="late",
        detail=words,
        amount=refund.amount,
        channel=payment.channel,
    )
    after = replace(refund, version=refund.version + 1, business_date=business_date)
    return RefundChange(refund, after, (), words, call_of(refund), now, opens=(exception,))
