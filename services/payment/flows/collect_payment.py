"""Take the money of a payment whose intent is stored, and go on from what the other side says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from common.errors import Outcome, PaymeshError
from services.payment.domain.exceptions import ExceptionKind, new_exception
from services.payment.domain.payments import ChargeNews, Failure, NextAction, Payment
from services.payment.domain.plans import Collection, Plan
from services.payment.domain.postings import Refused, conflict_chain, receive_chain
from services.payment.domain.states import PAYMENT_MOVES, PAYMENT_OPEN, PaymentState
from services.payment.events import payment_conflicted, payment_failed
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.save_payment import book, reporting_refusals, save
from services.payment.flows.settle_payment import settle
from services.payment.peers import AccountNames, reason_of
from services.payment.store.rows import Change

_log = structlog.get_logger(__name__)

# Reasons with which the ledger refuses a payer for good, as a bank would.
_LEDGER_DECLINES: Final = {
    "INSUFFICIENT_FUNDS": ("INSUFFICIENT_FUNDS", "OTHER_METHOD"),
    "ACCOUNT_DEBIT_FROZEN": ("ACCOUNT_FROZEN", "OTHER_METHOD"),
    "ACCOUNT_CLOSED": ("ACCOUNT_CLOSED", "OTHER_METHOD"),
    "ACCOUNT_NOT_FOUND": ("ACCOUNT_NOT_FOUND", "OTHER_METHOD"),
}


async def collect(
    parts: Parts, payment: Payment, plan: Plan, other_channels: tuple[str, ...] = ()
) -> Payment:
    """Take the money of a new payment; return the payment as far as it got.

    A failure of the way there leaves the payment open: the janitor asks, nothing is guessed.
    """
    try:
        async with reporting_refusals(parts, payment):
            await parts.peers.open_platform_accounts(payment)
            if plan.collection is Collection.LEDGER:
                return await collect_from_ledger(parts, payment)
            return await _collect_from_channel(parts, payment, other_channels)
    except PaymeshError as error:
        _log.warning(
            "payment left open", payment_id=payment.id, reason=reason_of(error), error=str(error)
        )
        return await parts.store.find_payment(payment.id) or payment


async def collect_from_ledger(parts: Parts, payment: Payment) -> Payment:
    """Move the amount out of the payer's account; refused for funds is a decline."""
    answer = await parts.peers.post(
        receive_chain(payment, AccountNames(payment)), payment.amount.currency_code
    )
    if isinstance(answer, Refused):
        code, advice = _LEDGER_DECLINES.get(answer.reason, (answer.reason, "NONE"))
        return await fail(parts, payment, Failure("DECLINED", code, answer.reason, advice))
    return await settle(parts, payment, received=True)


async def _collect_from_channel(
    parts: Parts, payment: Payment, other_channels: tuple[str, ...]
) -> Payment:
    """Ask the chosen channel, and the next one when it surely did nothing."""
    remaining = list(other_channels)
    while True:
        try:
            news = await parts.peers.charge(payment)
        except PaymeshError as error:
            if error.outcome is not Outcome.NOT_EXECUTED:
                raise
            if not remaining or payment.attempt >= parts.settings.channel_attempts_max:
                return await fail(parts, payment, Failure(reason_of(error), advice="TRY_AGAIN"))
            channel = remaining.pop(0)
            reason = f"{payment.channel} surely did not execute ({reason_of(error)})"
            moved = await _try_next_channel(parts, payment, channel, reason)
            if moved is None:
                return await parts.store.find_payment(payment.id) or payment
            payment = moved
            await parts.peers.open_platform_accounts(payment)
            continue
        return await apply_news(parts, payment, news)


async def _try_next_channel(
    parts: Parts, payment: Payment, channel: str, reason: str
) -> Payment | None:
    """Write the next attempt before it is made; None when somebody else moved the payment."""
    now = parts.clock.now()
    after = replace(
        payment,
        version=payment.version + 1,
        channel=channel,
        channel_reason=reason,
        attempt=payment.attempt + 1,
    )
    change = Change(
        payment,
        after,
        (),
        reason,
        call_of(payment),
        now,
        next_question_at=parts.first_question_at(now),
    )
    return after if await parts.writer.save_change(change) else None


async def apply_news(parts: Parts, payment: Payment, news: ChargeNews) -> Payment:
    """Move a payment by what its channel says of it."""
    if news.state == "SUCCEEDED":
        return await settle(parts, payment)
    if news.state == "CONFLICTED":
        return await _conflict(parts, payment, news)
    if payment.state not in PAYMENT_OPEN:
        return payment
    if news.state == "FAILED":
        return await fail(parts, payment, news.failure or Failure("DECLINED"))
    if news.state == "CLOSED":
        return await _close(parts, payment)
    if news.state == "NEVER_ASKED":
        # The channel service has no such charge, so nobody else can say when its life is over.
        life = timedelta(seconds=parts.settings.request_life_seconds)
        if parts.clock.now() - payment.created_at > life:
            failure = Failure("CHANNEL_UNAVAILABLE", advice="TRY_AGAIN")
            return await fail(parts, payment, failure)
        return await ask_again(parts, payment, PaymentState.UNKNOWN)
    if news.state == "PENDING":
        return await ask_again(parts, payment, PaymentState.REQUIRES_ACTION, news)
    return await ask_again(parts, payment, PaymentState.UNKNOWN)


async def fail(parts: Parts, payment: Payment, failure: Failure) -> Payment:
    """End a payment: surely no money moved.

    Where people have decided that, its channel is asked on until it has ended there too.
    """
    now = parts.clock.now()
    call = call_of(payment)
    after = payment.moved(PaymentState.FAILED, failure=failure, next_action=None)
    ask_at = parts.next_question_at(now, payment.created_at) if failure.is_by_decision else None
    change = Change(
        payment,
        after,
        (PaymentState.FAILED,),
        f"{failure.reason} {failure.decline_code}".strip(),
        call,
        now,
        (payment_failed(after, call, now),),
        next_question_at=ask_at,
    )
    return await save(parts, change)


async def _close(parts: Parts, payment: Payment) -> Payment:
    now = parts.clock.now()
    call = call_of(payment)
    after = payment.moved(PaymentState.CLOSED, next_action=None)
    change = Change(
        payment,
        after,
        (PaymentState.CLOSED,),
        "closed at the channel before it was paid",
        call,
        now,
        (payment_failed(after, call, now),),
    )
    return await save(parts, change)


async def ask_again(
    parts: Parts, payment: Payment, state: PaymentState, news: ChargeNews | None = None
) -> Payment:
    """Leave a payment open, in the state that says what is waited for."""
    now = parts.clock.now()
    action = payment.next_action
    if news is not None and news.qr_content:
        action = NextAction("show_qr", news.qr_content)
    elif news is not None and news.redirect_url:
        action = NextAction("redirect", news.redirect_url)
    elif state is PaymentState.REQUIRES_ACTION and action is None:
        action = NextAction("wait")
    path = () if payment.state is state else (state,)
    if not path and action == payment.next_action:
        return payment
    after = (
        payment.moved(*path, next_action=action)
        if path
        else replace(payment, next_action=action, version=payment.version + 1)
    )
    change = Change(
        payment,
        after,
        path,
        "the payer has to act" if state is PaymentState.REQUIRES_ACTION else "not known yet",
        call_of(payment),
        now,
        next_question_at=parts.next_question_at(now, payment.created_at),
    )
    return await save(parts, change)


async def _conflict(parts: Parts, payment: Payment, news: ChargeNews) -> Payment:
    """Put what really came into suspense, in its currency; it goes back unless a person decides."""
    if PaymentState.CONFLICTED not in PAYMENT_MOVES[payment.state]:
        return payment
    received = news.received
    if received is None:
        # How much came is not said, so nothing can be booked yet: the channel is asked again.
        if payment.state not in PAYMENT_OPEN:
            return payment
        return await ask_again(parts, payment, PaymentState.UNKNOWN)
    after = payment.moved(PaymentState.CONFLICTED, received=received, next_action=None)
    currency = received.currency_code
    await parts.peers.open_platform_accounts(payment, currency)
    await book(parts, conflict_chain(after, AccountNames(after, currency)), currency, "conflict")
    now = parts.clock.now()
    call = call_of(payment)
    asked = payment.amount
    is_same = currency == asked.currency_code
    words = (
        f"{payment.channel} took {received.amount_minor} {currency},"
        f" not {asked.amount_minor} {asked.currency_code} (minor units)"
    )
    exception = new_exception(
        ExceptionKind.AMOUNT_MISMATCH if is_same else ExceptionKind.CURRENCY_MISMATCH,
        after,
        parts.deadlines,
        now,
        occasion="conflict",
        detail=words,
        amount=received,
        channel=payment.channel,
    )
    change = Change(
        payment,
        after,
        (PaymentState.CONFLICTED,),
        words,
        call,
        now,
        (payment_conflicted(after, call, now),),
        opens=(exception,),
    )
    saved = await save(parts, change)
    if PaymentState.CONFLICTED in PAYMENT_MOVES[saved.state]:
        # Somebody wrote something else meanwhile, and did not know of the money that is booked.
        return await _conflict(parts, saved, news)
    return saved
