"""Money has come: book it, let the payment claim its order, and bring it where it belongs."""

from __future__ import annotations

from services.payment.domain.payments import Payment
from services.payment.domain.postings import receive_chain, return_chain, settle_chain
from services.payment.domain.states import PaymentState
from services.payment.errors import LedgerRefusedError
from services.payment.events import payment_returned, payment_succeeded
from services.payment.flows.parts import Parts, call_of
from services.payment.peers import AccountNames, Refused
from services.payment.store import Change


async def settle(parts: Parts, payment: Payment, *, received: bool = False) -> Payment:
    """Bring received money to its end; safe to repeat from any point, with the same ids.

    `received` says that the money is in transit already. Raises PaymeshError when a peer cannot be
    reached: the payment stays as it was, and the janitor comes back to it.
    """
    if payment.state in (PaymentState.SUCCEEDED, PaymentState.RETURNED):
        return payment
    names = AccountNames(payment)
    currency = payment.amount.currency_code
    if payment.state is not PaymentState.RETURNING:
        if not received:
            await parts.peers.open_platform_accounts(payment)
            answer = await parts.peers.post(receive_chain(payment, names), currency)
            if isinstance(answer, Refused):
                raise LedgerRefusedError(ledger_reason=answer.reason)
        if await parts.peers.claim_order(payment):
            return await _book(parts, payment)
    return await give_back(parts, payment)


async def _book(parts: Parts, payment: Payment) -> Payment:
    """The claim is won: transit → merchant and fee, or → user."""
    chain = settle_chain(payment, AccountNames(payment))
    answer = await parts.peers.post(chain, payment.amount.currency_code)
    if isinstance(answer, Refused):
        raise LedgerRefusedError(ledger_reason=answer.reason)
    path = _path(payment, PaymentState.SUCCEEDED)
    after = payment.moved(*path, business_date=answer.business_date, next_action=None, failure=None)
    now = parts.clock.now()
    call = call_of(payment)
    change = Change(
        payment, after, path, "order claimed", call, now, (payment_succeeded(after, call, now),)
    )
    return await _save(parts, change)


async def give_back(parts: Parts, payment: Payment) -> Payment:
    """The claim is lost: the money goes back to the payer, and that is the end of it."""
    now = parts.clock.now()
    call = call_of(payment)
    if payment.state is not PaymentState.RETURNING:
        path = _path(payment, PaymentState.RETURNING)
        after = payment.moved(*path, next_action=None)
        change = Change(
            payment,
            after,
            path,
            "the order is paid or closed already",
            call,
            now,
            next_question_at=parts.first_question_at(now),
        )
        payment = await _save(parts, change)
        if payment.state is not PaymentState.RETURNING:
            return payment
    if not payment.is_internal:
        words = "the order is paid or closed already"
        state = await parts.peers.refund(payment, payment.id, payment.amount, words)
        if state != "SUCCEEDED":
            return payment
    chain = return_chain(payment, AccountNames(payment))
    answer = await parts.peers.post(chain, payment.amount.currency_code)
    if isinstance(answer, Refused):
        raise LedgerRefusedError(ledger_reason=answer.reason)
    after = payment.moved(PaymentState.RETURNED, business_date=answer.business_date)
    event = payment_returned(after, call, now)
    change = Change(
        payment, after, (PaymentState.RETURNED,), "back with the payer", call, now, (event,)
    )
    return await _save(parts, change)


def _path(payment: Payment, end: PaymentState) -> tuple[PaymentState, ...]:
    return (end,) if payment.state is PaymentState.RECEIVED else (PaymentState.RECEIVED, end)


async def _save(parts: Parts, change: Change) -> Payment:
    if await parts.writer.save_change(change):
        return change.after
    return await parts.store.find_payment(change.before.id) or change.after
