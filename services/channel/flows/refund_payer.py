"""Asks a channel to give money back on a charge: intent, call, outcome."""

from __future__ import annotations

from dataclasses import dataclass

from common.context import CallContext
from common.errors import IdConflictError, NotFoundError, PaymeshError, StateConflictError
from common.money import Money
from services.channel.domain import REFUND_ENDED, Charge, Refund, RefundState
from services.channel.errors import CurrencyMismatchError, RefundExceedsChargeError
from services.channel.flows.charge_payer import check_amount
from services.channel.flows.parts import Parts, may_see, owner_of
from services.channel.flows.query_refund import ask_refund, request_of
from services.channel.flows.read_result import (
    failure_news,
    outcome_unknown,
    refund_news,
    refusal_error,
)
from services.channel.results import ChannelError
from services.channel.store.movements import RefundOpened
from services.channel.store.news import Told


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """What payment asks for."""

    reference: str
    charge_reference: str
    subject_id: str
    words: str
    amount: Money


async def refund_payer(parts: Parts, asked: NewRefund, call: CallContext) -> Refund:
    """Return the refund after its channel was asked, once per reference.

    Raises:
        RefusedByChannelError, ChannelInvalidError, ChannelRateLimitedError,
        ChannelUnavailableError: nothing was given back.
        ChannelOutcomeUnknownError: perhaps it was.
        NotFoundError, StateConflictError, CurrencyMismatchError, RefundExceedsChargeError,
        IdConflictError, AmountOutOfRangeError: nothing was stored.
    """
    check_amount(asked.amount)
    now = parts.clock.now()
    draft = Refund(
        reference=asked.reference,
        charge_reference=asked.charge_reference,
        owner=owner_of(call),
        channel="",  # the charge's own; the store reads it under the lock
        subject_id=asked.subject_id,
        amount=asked.amount,
        words=asked.words,
        created_at=now,
        updated_at=now,
    )
    if not parts.refunding.is_under_way(asked.reference):
        # From the intent on, so that a caller who gives up leaves no intent that nobody sends.
        work = _open_and_send(parts, draft, asked, call)
        return await parts.refunding.send(asked.reference, work)
    opened = await parts.writer.open_refund(draft)
    charge = _checked(opened, asked, call)
    if opened.is_new:
        work = _send(parts, opened.noun, charge, call)
        return await parts.refunding.send(asked.reference, work)
    return await _answer_repeat(parts, opened.noun, charge, call)


async def _open_and_send(
    parts: Parts, draft: Refund, asked: NewRefund, call: CallContext
) -> Refund:
    """Store the intent and call the channel, or answer the repeat of an earlier call."""
    opened = await parts.writer.open_refund(draft)
    charge = _checked(opened, asked, call)
    if opened.is_new:
        return await _send(parts, opened.noun, charge, call)
    return await _answer_known(parts, opened.noun, charge, call)


def _checked(opened: RefundOpened, asked: NewRefund, call: CallContext) -> Charge:
    charge = opened.charge
    if charge is None or not may_see(call.principal, charge.owner):
        raise NotFoundError(resource="charge", id=asked.charge_reference)
    if opened.differs:
        raise IdConflictError(field=opened.differs, id=asked.reference)
    if charge.received is None:
        raise StateConflictError(resource="charge", state=charge.state)
    if opened.refundable_minor is not None:
        expected = charge.received.currency_code
        if expected != asked.amount.currency_code:
            raise CurrencyMismatchError(expected=expected, got=asked.amount.currency_code)
        raise RefundExceedsChargeError(refundable_minor=opened.refundable_minor)
    return charge


async def _send(parts: Parts, refund: Refund, charge: Charge, call: CallContext) -> Refund:
    failure: ChannelError | None = None
    try:
        guard = parts.catalogue.find(refund.channel).guard
        url = parts.catalogue.callback_url_of(refund.channel)
        news = refund_news(await guard.refund(request_of(refund, charge, url)))
    except ChannelError as error:
        failure, news = error, failure_news(error)
    if news is None:
        known = (await parts.store.find_refunds([refund.reference])).get(refund.reference, refund)
    else:
        told = Told(
            reference=refund.reference,
            news=news,
            at=parts.clock.now(),
            actor=f"CHANNEL:{refund.channel}",
            way="answer",
            cause=call.causation_id,
            publish=parts.refunding.is_abandoned(refund.reference),
            # "Not sent" is said of this sending alone; what came by callback meanwhile stands.
            of_version=refund.version if news.state == RefundState.NOT_SENT else 0,
        )
        try:
            known = (await parts.writer.hear_refund(told)).noun or refund
        except PaymeshError as error:
            # "Nothing was executed" is true of the row alone: the channel was asked.
            raise outcome_unknown(refund.channel, "its answer could not be stored") from error
    if known.state is RefundState.UNKNOWN:
        raise failure or outcome_unknown(refund.channel, "answer about something else")
    return _or_refusal(known)


async def _answer_repeat(parts: Parts, refund: Refund, charge: Charge, call: CallContext) -> Refund:
    """Answer from what has ended, or from the call under way in this process."""
    if refund.state not in REFUND_ENDED:
        joined = await parts.refunding.join(refund.reference)
        if joined is not None:
            return joined
    return await _answer_known(parts, refund, charge, call)


async def _answer_known(parts: Parts, refund: Refund, charge: Charge, call: CallContext) -> Refund:
    """Answer from what has ended; ask where it has not, but never send again.

    What the channel accepted is asked about too: a repeat comes from somebody who waits for the
    end, and the callback that tells of it may have been lost or doubted.
    """
    if refund.state in REFUND_ENDED:
        return _or_refusal(refund)
    refund, _ = await ask_refund(parts, refund, charge, call)
    if refund.state is RefundState.UNKNOWN:
        raise outcome_unknown(refund.channel, "repeat")
    return _or_refusal(refund)


def _or_refusal(refund: Refund) -> Refund:
    if refund.state in (RefundState.FAILED, RefundState.NOT_SENT):
        raise refusal_error(refund)
    return refund
