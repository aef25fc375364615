"""Give money back: cap → hold at the merchant → channel → post, or void.

The cap is taken on the payment's row with the intent. The channel is never called without the hold.
Every step carries derived ids, so the whole may be repeated from any point.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog

from common.context import CallContext, bound
from common.errors import IdConflictError, NotFoundError, PaymeshError
from common.money import Money
from services.payment.domain.payments import Failure, Owner, Payment, Refund
from services.payment.domain.postings import (
    Refused,
    abandon_chain,
    hold_chain,
    hold_sources,
    refund_chain,
    release_chain,
)
from services.payment.domain.states import REFUND_ENDED, PaymentState, RefundState
from services.payment.errors import (
    CurrencyMismatchError,
    LedgerRefusedError,
    OrderNotRefundableError,
    RefundExceedsPaymentError,
)
from services.payment.events import refund_failed, refund_succeeded, refund_waiting
from services.payment.flows.book_late_refund import book_late_refund
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import book, report_other, reporting_refusals
from services.payment.peers import AccountNames, reason_of
from services.payment.store.rows import ADVANCE_REFUND, RefundChange

_log = structlog.get_logger(__name__)

_NO_FUNDS = ("INSUFFICIENT_FUNDS", "ACCOUNT_NOT_FOUND", "ACCOUNT_DEBIT_FROZEN", "ACCOUNT_CLOSED")

_POSTED = "PENDING_ALREADY_POSTED"


async def refund_payment(
    parts: Parts, refund_id: str, payment_id: str, amount: Money, words: str, call: CallContext
) -> Refund:
    """Give an amount back; a repeat gets the refund as it is.

    Raises:
        NotFoundError, OrderNotRefundableError, CurrencyMismatchError, RefundExceedsPaymentError,
        IdConflictError: nothing was written.
    """
    payment = await parts.store.find_payment(payment_id)
    if payment is None:
        raise NotFoundError(resource="payment")
    if amount.currency_code != payment.amount.currency_code:
        raise CurrencyMismatchError(expected=payment.amount.currency_code, got=amount.currency_code)
    now = parts.clock.now()
    draft = Refund(
        id=refund_id,
        payment_id=payment.id,
        order_id=payment.order_id,
        owner=Owner(
            payment.owner.tenant_id,
            payment.owner.mode,
            payment.owner.merchant_id,
            call.principal.actor,
        ),
        state=RefundState.PENDING,
        amount=amount,
        fee_returned_minor=0,
        biz_trace_id=payment.biz_trace_id,
        created_at=now,
        reason=words,
    )
    opened = await parts.refunds.open_refund(draft, call_of(payment), parts.first_question_at(now))
    if opened is None:
        raise NotFoundError(resource="payment")
    payment, refund, is_new = opened
    if not is_new:
        if refund is draft:
            _refuse(payment)
        earlier = _same_or_conflict(refund, draft)
        if earlier.state not in REFUND_ENDED:
            # Who asks again wants it to go on; the answer does not wait for that.
            await parts.store.hasten(ADVANCE_REFUND, earlier.id)
        return earlier
    try:
        return await advance_refund(parts, payment, refund)
    except PaymeshError as error:
        _log.warning("refund left open", refund_id=refund.id, reason=reason_of(error))
        return await parts.refunds.find_refund(refund.id) or refund


def _refuse(payment: Payment) -> None:
    if payment.state is not PaymentState.SUCCEEDED:
        raise OrderNotRefundableError(payment_id=payment.id)
    raise RefundExceedsPaymentError(refundable_minor=payment.refundable_minor)


def _same_or_conflict(earlier: Refund, draft: Refund) -> Refund:
    if earlier.payment_id != draft.payment_id:
        raise IdConflictError(id=draft.id, field="payment_id")
    if earlier.amount != draft.amount:
        raise IdConflictError(id=draft.id, field="amount")
    return earlier


async def advance_refund_by_id(parts: Parts, refund_id: str) -> Refund | None:
    """Bring a refund as far as it goes now; the janitor's entry.

    One that has failed is asked about too: the channel may have given the money back after all.
    """
    refund = await parts.refunds.find_refund(refund_id)
    if refund is None or refund.state is RefundState.SUCCEEDED or refund.is_late:
        return refund
    payment = await parts.store.find_payment(refund.payment_id)
    if payment is None:
        raise NotFoundError(resource="payment")
    return await advance_refund(parts, payment, refund)


async def advance_refund(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    """Go on from where a refund stands; every step may be repeated."""
    with bound(call_of(refund)):
        async with reporting_refusals(parts, refund):
            return await _advance(parts, payment, refund)


async def _advance(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    if refund.state is RefundState.FAILED:
        return await book_late_refund(parts, payment, refund)
    if refund.failure is not None:
        return await _release(parts, payment, refund)
    await parts.peers.open_platform_accounts(payment)
    if refund.state in (RefundState.PENDING, RefundState.WAITING_FUNDS):
        held = await _hold(parts, payment, refund)
        if held is None:
            return await _wait_for_funds(parts, refund)
        refund = held
    # Somebody else may have been first, and to another state: never the channel without the hold.
    if refund.state not in (RefundState.HELD, RefundState.UNKNOWN) or refund.failure is not None:
        return refund
    if payment.is_internal:
        return await _complete(parts, payment, refund)
    return await _ask_channel(parts, payment, refund)


async def _ask_channel(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    if refund.state is RefundState.UNKNOWN:
        news = await parts.peers.query_refund(refund.id, refund.amount)
        if news.state == "NOT_FOUND":
            # The request never arrived there; the same reference may be sent again.
            news = await parts.peers.refund(payment, refund.id, refund.amount, refund.reason)
    else:
        news = await parts.peers.refund(payment, refund.id, refund.amount, refund.reason)
    if news.state == "SUCCEEDED":
        return await _complete(parts, payment, refund)
    if news.state == "FAILED":
        return await _fail(parts, refund, Failure(news.reason, raw_code=news.raw_code))
    words = "the channel works on it" if news.state == "PENDING" else "not known yet"
    refund = await _leave_unknown(parts, refund, words)
    if news.state == "OTHER":
        await report_other(parts, refund)
    return refund


async def _hold(parts: Parts, payment: Payment, refund: Refund) -> Refund | None:
    """Hold the money on the first source that covers it; None when none does."""
    for source in hold_sources(payment):
        chain = hold_chain(payment, refund, source, AccountNames(payment))
        answer = await parts.peers.post(chain, payment.amount.currency_code)
        if not isinstance(answer, Refused):
            after = refund.moved(RefundState.HELD, source_kind=source)
            return await _save(parts, refund, after, (RefundState.HELD,), f"held on {source}")
        if answer.reason not in _NO_FUNDS:
            raise LedgerRefusedError(ledger_reason=answer.reason, step="hold")
    return None


async def fail_refund(parts: Parts, refund_id: str, failure: Failure) -> Refund | None:
    """Let a refund fail of which nobody knows what the channel did: a person has proof of it.

    The decision is written first, so that nobody holds money or calls the channel any more; then
    the holds are released, whose fate may be unknown too; then it has failed.
    """
    refund = await parts.refunds.find_refund(refund_id)
    if refund is None or refund.state in REFUND_ENDED:
        return refund
    payment = await parts.store.find_payment(refund.payment_id)
    if payment is None:
        raise NotFoundError(resource="payment")
    with bound(call_of(refund)):
        if refund.failure is None:
            after = replace(refund, failure=failure, version=refund.version + 1)
            refund = await _save(parts, refund, after, (), "decided that it fails")
    if refund.failure is None:
        return refund
    return await advance_refund(parts, payment, refund)


async def _release(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    """It is decided that the refund fails: nothing may stay held, nor come to be held later."""
    if refund.failure is None or refund.state in REFUND_ENDED:
        return refund
    if refund.source_kind:
        return await _release_held(parts, payment, refund, refund.failure)
    # One void at a time: each is an answer of its own, and none must fail for another's sake.
    for posting in abandon_chain(payment, refund):
        await book(parts, (posting,), refund.amount.currency_code, "void")
    return await _end_failed(parts, refund, refund.failure)


async def _release_held(parts: Parts, payment: Payment, refund: Refund, failure: Failure) -> Refund:
    """The channel had been called, so it is asked a last time before the hold is given back."""
    if not payment.is_internal:
        news = await parts.peers.query_refund(refund.id, refund.amount)
        if news.state == "SUCCEEDED":
            return await _complete(parts, payment, refund)
    try:
        return await _fail(parts, refund, failure)
    except LedgerRefusedError as error:
        # Somebody who had the channel's answer was first, and could not write it any more.
        if error.metadata["ledger_reason"] != _POSTED:
            raise
        return await _complete(parts, payment, refund)


async def _wait_for_funds(parts: Parts, refund: Refund) -> Refund:
    """The merchant's balance does not cover it: tried again under new ids, until it expires."""
    now = parts.clock.now()
    call = call_of(refund)
    if now - refund.created_at > timedelta(days=parts.settings.waiting_funds_days):
        return await _end_failed(parts, refund, Failure("INSUFFICIENT_FUNDS"))
    if refund.state is RefundState.WAITING_FUNDS:
        after = replace(refund, attempt=refund.attempt + 1, version=refund.version + 1)
        path: tuple[RefundState, ...] = ()
    else:
        path = (RefundState.WAITING_FUNDS,)
        after = refund.moved(*path, attempt=refund.attempt + 1)
    change = RefundChange(
        refund,
        after,
        path,
        "the merchant's balance does not cover it",
        call,
        now,
        (refund_waiting(after, call, now),) if path else (),
    )
    await parts.refunds.save_refund(change)
    return await parts.refunds.find_refund(refund.id) or after


async def _complete(parts: Parts, payment: Payment, refund: Refund) -> Refund:
    """The payer has its money: post the holds and what goes back, in one chain."""
    chain = refund_chain(payment, refund, AccountNames(payment))
    booked = await book(parts, chain, payment.amount.currency_code, "post")
    after = refund.moved(RefundState.SUCCEEDED, business_date=booked.business_date, failure=None)
    now = parts.clock.now()
    call = call_of(refund)
    change = RefundChange(
        refund,
        after,
        (RefundState.SUCCEEDED,),
        "back with the payer",
        call,
        now,
        (refund_succeeded(after, call, now),),
    )
    if await parts.refunds.save_refund(change):
        return after
    found = await parts.refunds.find_refund(refund.id) or after
    if found.state in (RefundState.HELD, RefundState.UNKNOWN):
        # Somebody wrote something else meanwhile, and did not know that the money is back.
        return await _complete(parts, payment, found)
    return found


async def _fail(parts: Parts, refund: Refund, failure: Failure) -> Refund:
    """The channel refused: release the holds first, then the cap."""
    await book(parts, release_chain(refund), refund.amount.currency_code, "void")
    return await _end_failed(parts, refund, failure)


async def _end_failed(parts: Parts, refund: Refund, failure: Failure) -> Refund:
    now = parts.clock.now()
    call = call_of(refund)
    after = refund.moved(RefundState.FAILED, failure=failure)
    # Nobody knew what its channel did, so that is asked on until it has ended there too.
    is_asked_on = failure.is_by_decision and refund.source_kind != ""
    change = RefundChange(
        refund,
        after,
        (RefundState.FAILED,),
        failure.reason,
        call,
        now,
        (refund_failed(after, call, now),),
        next_question_at=parts.next_question_at(now, refund.created_at) if is_asked_on else None,
    )
    if await parts.refunds.save_refund(change):
        return after
    return await parts.refunds.find_refund(refund.id) or after


async def _leave_unknown(parts: Parts, refund: Refund, words: str) -> Refund:
    if refund.state is RefundState.UNKNOWN:
        return refund
    after = refund.moved(RefundState.UNKNOWN)
    return await _save(parts, refund, after, (RefundState.UNKNOWN,), words)


async def _save(
    parts: Parts, before: Refund, after: Refund, path: tuple[RefundState, ...], reason: str
) -> Refund:
    now = parts.clock.now()
    change = RefundChange(
        before,
        after,
        path,
        reason,
        call_of(before),
        now,
    )
    if await parts.refunds.save_refund(change):
        return after
    found = await parts.refunds.find_refund(before.id)
    return found if found is not None else after
