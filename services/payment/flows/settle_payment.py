"""Money has come: book it, let the payment claim its order, and bring it where it belongs."""

from __future__ import annotations

from typing import Final

from services.payment.domain.payments import Payment
from services.payment.domain.postings import (
    conflict_return_chain,
    receive_chain,
    return_chain,
    settle_chain,
    unclaim_chain,
)
from services.payment.domain.states import PAYMENT_OVER, PaymentState
from services.payment.events import payment_returned, payment_succeeded
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import book, report_return_refused, save
from services.payment.peers import AccountNames
from services.payment.store.rows import Change

# It is known where the money goes, and whose it is.
_MONEY_PLACED: Final = frozenset(
    {
        PaymentState.SUCCEEDED,
        PaymentState.CONFLICTED,
        PaymentState.RETURNING,
        PaymentState.RETURNED,
        PaymentState.UNCLAIMED,
    }
)

_LOST_CLAIM = "the order is paid or closed already"
_OTHER_MONEY = "other money came than was asked for"


# Somebody who changes a payment that often while its money is booked is a bug, not a race.
_ROUNDS_MAX: Final = 8


async def settle(parts: Parts, payment: Payment, *, received: bool = False) -> Payment:
    """Bring received money to its end; safe to repeat from any point, with the same ids.

    Whoever changed the payment meanwhile did not know of the money: it is gone on with from what
    stands now, so that a late success is not lost to an earlier failure. `received` says that the
    money is in transit already. Raises PaymeshError when a peer cannot be reached: the payment
    stays as it was, and the janitor comes back to it.
    """
    for _ in range(_ROUNDS_MAX):
        payment = await _settle_once(parts, payment, received)
        if payment.state in _MONEY_PLACED:
            break
        received = True
    return payment


async def _settle_once(parts: Parts, payment: Payment, received: bool) -> Payment:
    if payment.state in _MONEY_PLACED and payment.state is not PaymentState.RETURNING:
        return payment
    if payment.state is not PaymentState.RETURNING:
        if not received:
            await parts.peers.open_platform_accounts(payment)
            chain = receive_chain(payment, AccountNames(payment))
            await book(parts, chain, payment.amount.currency_code, "receive")
        if await parts.peers.claim_order(payment):
            return await _book(parts, payment)
    return await give_back(parts, payment)


async def _book(parts: Parts, payment: Payment) -> Payment:
    """The claim is won: transit → merchant and fee, or → user."""
    chain = settle_chain(payment, AccountNames(payment))
    booked = await book(parts, chain, payment.amount.currency_code, "settle")
    path = _path(payment, PaymentState.SUCCEEDED)
    after = payment.moved(*path, business_date=booked.business_date, next_action=None, failure=None)
    now = parts.clock.now()
    call = call_of(payment)
    change = Change(
        payment, after, path, "order claimed", call, now, (payment_succeeded(after, call, now),)
    )
    return await save(parts, change)


async def give_back(parts: Parts, payment: Payment) -> Payment:
    """All that came goes back to the payer: its claim is lost, or it was other money than asked.

    A channel that refuses leaves the payment RETURNING, with an exception that tells of it.
    """
    if payment.state in PAYMENT_OVER:
        return payment
    if payment.state is not PaymentState.RETURNING:
        payment = await _begin_return(parts, payment)
        if payment.state is not PaymentState.RETURNING:
            return payment
    if payment.is_internal or payment.money_in.amount_minor == 0:
        return await _book_return(parts, payment)
    if not await _is_back_since(parts, payment):
        words = _LOST_CLAIM if payment.received is None else _OTHER_MONEY
        news = await parts.peers.refund(
            payment, payment.id, payment.money_in, words, payment.return_attempt
        )
        if news.state == "FAILED":
            await report_return_refused(parts, payment, news.raw_code)
            return payment
        if news.state != "SUCCEEDED":
            return payment
    return await _book_return(parts, payment)


async def _is_back_since(parts: Parts, payment: Payment) -> bool:
    """Say whether an earlier attempt, which was refused, has brought the money back after all."""
    for attempt in range(1, payment.return_attempt):
        if (await parts.peers.query_refund(payment.id, attempt)).state == "SUCCEEDED":
            return True
    return False


async def _begin_return(parts: Parts, payment: Payment) -> Payment:
    now = parts.clock.now()
    path = _path(payment, PaymentState.RETURNING)
    change = Change(
        payment,
        payment.moved(*path, next_action=None),
        path,
        _LOST_CLAIM if payment.received is None else _OTHER_MONEY,
        call_of(payment),
        now,
        next_question_at=parts.first_question_at(now),
    )
    return await save(parts, change)


async def _book_return(parts: Parts, payment: Payment) -> Payment:
    """The channel says that the money is back."""
    currency = payment.money_in.currency_code
    names = AccountNames(payment, currency)
    await parts.peers.open_platform_accounts(payment, currency)
    if payment.received is None:
        booked = await book(parts, return_chain(payment, names), currency, "return")
    else:
        chain = conflict_return_chain(payment, names)
        booked = await book(parts, chain, currency, "conflict_return")
    now = parts.clock.now()
    call = call_of(payment)
    after = payment.moved(PaymentState.RETURNED, business_date=booked.business_date)
    event = payment_returned(after, call, now)
    change = Change(
        payment, after, (PaymentState.RETURNED,), "back with the payer", call, now, (event,)
    )
    return await save(parts, change)


async def keep_unclaimed(parts: Parts, payment: Payment) -> Payment:
    """The channel refuses for good: what came is kept for the payer, and that is the end of it."""
    if payment.state is not PaymentState.RETURNING:
        return payment
    currency = payment.money_in.currency_code
    await parts.peers.open_platform_accounts(payment, currency, "unclaimed")
    chain = unclaim_chain(payment, AccountNames(payment, currency))
    booked = await book(parts, chain, currency, "unclaim")
    now = parts.clock.now()
    after = payment.moved(PaymentState.UNCLAIMED, business_date=booked.business_date)
    change = Change(
        payment,
        after,
        (PaymentState.UNCLAIMED,),
        f"{payment.channel} refuses to give it back; kept for the payer",
        call_of(payment),
        now,
    )
    return await save(parts, change)


def _path(payment: Payment, end: PaymentState) -> tuple[PaymentState, ...]:
    if payment.state in (PaymentState.RECEIVED, PaymentState.CONFLICTED):
        return (end,)
    return (PaymentState.RECEIVED, end)
