"""All that came goes back to the payer; what the channel refuses for good is kept for the payer.

What is booked is decided first, by compare-and-set (`way_out`): a channel that changes its mind
while what it refused is being kept can no longer make both be booked. What it gives back after
that decision is booked as what it is (`book_late_return.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.payment.domain.payments import Payment, WayOut
from services.payment.domain.postings import (
    Chain,
    conflict_return_chain,
    return_chain,
    unclaim_chain,
)
from services.payment.domain.states import PAYMENT_OVER, PaymentState
from services.payment.events import payment_returned, payment_unclaimed
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import (
    book,
    path_from,
    report_other,
    report_return_refused,
    save,
)
from services.payment.peers import AccountNames
from services.payment.store.rows import Change

_LOST_CLAIM: Final = "the order is paid or closed already"
_OTHER_MONEY: Final = "other money came than was asked for"

# Somebody who changes a payment that often while its money goes back is a bug, not a race.
_ROUNDS_MAX: Final = 8


async def give_back(parts: Parts, payment: Payment) -> Payment:
    """Give all of it back: its claim is lost, or it was other money than asked.

    A channel that refuses leaves the payment RETURNING, with an exception that tells of it. A way
    out that was decided before is gone on with.
    """
    if payment.state in PAYMENT_OVER:
        return payment
    if payment.state is not PaymentState.RETURNING:
        payment = await _begin_return(parts, payment)
        if payment.state is not PaymentState.RETURNING:
            return payment
    if payment.way_out is None and not await _is_back(parts, payment):
        return payment
    for _ in range(_ROUNDS_MAX):
        # That the money is back stays true, whatever somebody else has changed meanwhile.
        if payment.state is not PaymentState.RETURNING or payment.way_out is not None:
            break
        payment = await _decide(parts, payment, WayOut.RETURN, "the channel says that it is back")
    return await _book_way_out(parts, payment)


async def keep_unclaimed(parts: Parts, payment: Payment) -> Payment:
    """The channel refuses for good: what came is kept for the payer, and that is the end of it.

    Nothing where somebody else has changed the payment: what was decided about it is out of date.
    """
    if payment.state is PaymentState.RETURNING and payment.way_out is None:
        words = f"{payment.channel} refuses to give it back; it is kept for the payer"
        payment = await _decide(parts, payment, WayOut.UNCLAIM, words)
    return await _book_way_out(parts, payment)


async def _begin_return(parts: Parts, payment: Payment) -> Payment:
    now = parts.clock.now()
    path = path_from(payment, PaymentState.RETURNING)
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


async def _is_back(parts: Parts, payment: Payment) -> bool:
    """Ask for the money, and say whether the payer has it."""
    if payment.is_internal or payment.money_in.amount_minor == 0:
        return True
    # An earlier attempt, which was refused, may have brought it back after all.
    for attempt in range(1, payment.return_attempt):
        earlier = await parts.peers.query_refund(payment.id, payment.money_in, attempt)
        if earlier.state == "SUCCEEDED":
            return True
    words = _LOST_CLAIM if payment.received is None else _OTHER_MONEY
    news = await parts.peers.refund(
        payment, payment.id, payment.money_in, words, payment.return_attempt
    )
    if news.state == "FAILED":
        await report_return_refused(parts, payment, news.raw_code)
    if news.state == "OTHER":
        await report_other(parts, payment)
    return news.state == "SUCCEEDED"


async def _decide(parts: Parts, payment: Payment, way_out: WayOut, words: str) -> Payment:
    """Write what will be booked, before it is; return the payment as it is then."""
    after = replace(payment, version=payment.version + 1, way_out=way_out)
    change = Change(payment, after, (), words, call_of(payment), parts.clock.now())
    return await save(parts, change)


async def _book_way_out(parts: Parts, payment: Payment) -> Payment:
    """Book what is decided, whoever has decided it, and end the payment."""
    if payment.state is not PaymentState.RETURNING or payment.way_out is None:
        return payment
    currency = payment.money_in.currency_code
    is_back = payment.way_out is WayOut.RETURN
    more_kinds = () if is_back else ("unclaimed",)
    await parts.peers.open_platform_accounts(payment, currency, *more_kinds)
    chain, step = _chain(payment, AccountNames(payment, currency))
    booked = await book(parts, chain, currency, step)
    now = parts.clock.now()
    call = call_of(payment)
    tell = payment_returned if is_back else payment_unclaimed
    end = PaymentState.RETURNED if is_back else PaymentState.UNCLAIMED
    after = payment.moved(end, business_date=booked.business_date)
    change = Change(
        payment,
        after,
        (end,),
        "back with the payer" if is_back else "kept for the payer",
        call,
        now,
        (tell(after, call, now),),
        # Another attempt may still be on its way at the channel: it is asked about once more.
        next_question_at=parts.first_question_at(now) if payment.return_attempt > 1 else None,
    )
    return await save(parts, change)


def _chain(payment: Payment, names: AccountNames) -> tuple[Chain, str]:
    """Return what is booked for the way out, and the name of the step."""
    if payment.way_out is WayOut.UNCLAIM:
        return unclaim_chain(payment, names), "unclaim"
    if payment.received is None:
        return return_chain(payment, names), "return"
    return conflict_return_chain(payment, names), "conflict_return"
