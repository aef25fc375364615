"""A return had ended, and the channel gave the money back all the same: book what happened.

A channel may carry out what it had refused: after the money was kept for the payer, or after
another attempt has brought it back. What is kept goes to where it went; nobody stands for what went
out beyond that, so it is a loss until people have agreed on it.
"""

from __future__ import annotations

from dataclasses import replace

from services.payment.domain.exceptions import ExceptionKind, PaymentException, new_exception
from services.payment.domain.payments import ON_ITS_WAY, Payment
from services.payment.domain.postings import Booked, late_return_chain, unclaimed_return_chain
from services.payment.domain.states import PAYMENT_RETURN_ENDED, PaymentState
from services.payment.errors import LedgerRefusedError
from services.payment.events import payment_returned
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import book
from services.payment.peers import AccountNames
from services.payment.store.rows import Change

_NOT_KEPT = "INSUFFICIENT_FUNDS"


async def book_late_returns(parts: Parts, payment: Payment) -> Payment:
    """Ask about every attempt of a return that has ended, and book what went back too often.

    Safe to repeat: the attempts that gave money back are counted, and only what the row has not
    counted is booked, each time under the id of its number. Raises PaymeshError when the channel or
    the ledger cannot be asked: the job comes back.
    """
    times = (await _ask_attempts(parts, payment)).count("SUCCEEDED")
    while payment.state in PAYMENT_RETURN_ENDED and _times_booked(payment) < times:
        payment = await _book_once(parts, payment)
    return payment


async def is_under_way(parts: Parts, payment: Payment) -> bool:
    """Say whether an attempt to give back what has left already may still bring it back."""
    return not ON_ITS_WAY.isdisjoint(await _ask_attempts(parts, payment))


async def _ask_attempts(parts: Parts, payment: Payment) -> list[str]:
    """Return what the channel says of each attempt; nothing where no other can have brought it."""
    is_alone = payment.return_attempt == 1 and payment.state is PaymentState.RETURNED
    if is_alone or payment.is_internal or payment.money_in.amount_minor == 0:
        return []
    return [
        (await parts.peers.ask_refund(payment.id, payment.money_in, attempt)).state
        for attempt in range(1, payment.return_attempt + 1)
    ]


def _times_booked(payment: Payment) -> int:
    """Return how often our books say that the money went back."""
    return payment.late_returns + (1 if payment.state is PaymentState.RETURNED else 0)


async def _book_once(parts: Parts, payment: Payment) -> Payment:
    """Book one more return; answer the payment after it, or as somebody else has made it."""
    currency = payment.money_in.currency_code
    await parts.peers.open_platform_accounts(payment, currency, "unclaimed", "loss")
    booked = await _book_from_unclaimed(parts, payment)
    if booked is None:
        chain = late_return_chain(payment, AccountNames(payment, currency))
        await book(parts, chain, currency, "late_return")
        change = _loss(parts, payment)
    else:
        change = _given_back(parts, payment, booked.business_date)
    if await parts.writer.save_change(change):
        return change.after
    return await parts.store.find_payment(payment.id) or change.after


async def _book_from_unclaimed(parts: Parts, payment: Payment) -> Booked | None:
    """Take it from what is kept for the payer; None where nothing is, or not any more."""
    if payment.state is not PaymentState.UNCLAIMED:
        return None
    currency = payment.money_in.currency_code
    chain = unclaimed_return_chain(payment, AccountNames(payment, currency))
    try:
        return await book(parts, chain, currency, "unclaimed_return")
    except LedgerRefusedError as error:
        if error.metadata["ledger_reason"] != _NOT_KEPT:
            raise
        return None


def _given_back(parts: Parts, payment: Payment, business_date: str) -> Change:
    """What was kept is with the payer: the payment is returned after all."""
    now = parts.clock.now()
    call = call_of(payment)
    words = f"{payment.channel} gave back what was kept for the payer"
    path = (PaymentState.RETURNED,)
    after = payment.moved(*path, business_date=business_date)
    told = _exception(parts, payment, "unclaimed", words)
    event = payment_returned(after, call, now)
    return Change(payment, after, path, words, call, now, (event,), opens=(told,))


def _loss(parts: Parts, payment: Payment) -> Change:
    """The channel gave back more than came, and nobody stands for it."""
    number = payment.late_returns + 1
    words = f"{payment.channel} gave the money back once more, which is a loss ({number})"
    after = replace(payment, version=payment.version + 1, late_returns=number)
    told = _exception(parts, payment, f"late.{number}", words)
    return Change(payment, after, (), words, call_of(payment), parts.clock.now(), opens=(told,))


def _exception(parts: Parts, payment: Payment, occasion: str, words: str) -> PaymentException:
    return new_exception(
        ExceptionKind.RETURN_AFTER_END,
        payment,
        parts.deadlines,
        parts.clock.now(),
        occasion=occasion,
        detail=words,
        amount=payment.money_in,
        channel=payment.channel,
    )
