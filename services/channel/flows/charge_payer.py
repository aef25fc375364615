"""Asks a channel to take money: the intent first, then the call, then its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from common.context import CallContext
from common.errors import (
    AmountOutOfRangeError,
    CurrencyUnknownError,
    IdConflictError,
    PaymeshError,
)
from common.money import AMOUNT_MINOR_MAX, Money, UnknownCurrencyError, exponent_of
from services.channel.domain import Charge, ChargeState
from services.channel.flows.parts import Parts, may_see, owner_of
from services.channel.flows.query_charge import ask_charge, pay_request_of
from services.channel.flows.read_result import (
    charge_news,
    failure_news,
    outcome_unknown,
    refusal_error,
)
from services.channel.results import (
    Advice,
    Blame,
    ChannelError,
    ChannelUnavailableError,
    Decline,
    DeclineCode,
    DeclinedError,
)
from services.channel.store.movements import Opened
from services.channel.store.news import Told

# The card was bound when the payment was made, and is not any more.
_CARD_GONE = Decline(DeclineCode.CARD_INVALID, Advice.OTHER_METHOD, Blame.PAYER)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCharge:
    """What payment asks for."""

    reference: str
    channel: str
    payment_id: str
    product: str
    card_id: str
    subject: str
    amount: Money
    expires_at: datetime | None


async def charge_payer(parts: Parts, asked: NewCharge, call: CallContext) -> Charge:
    """Return the charge after its channel was asked, once per reference.

    Raises:
        RefusedByChannelError, ChannelInvalidError, ChannelRateLimitedError,
        ChannelUnavailableError: no money moved.
        ChannelOutcomeUnknownError: perhaps it did.
        ChannelUnknownError, IdConflictError, AmountOutOfRangeError, CurrencyUnknownError: nothing
            was stored.
    """
    check_amount(asked.amount)
    await _check_channel(parts, asked)
    now = parts.clock.now()
    draft = Charge(
        reference=asked.reference,
        owner=owner_of(call),
        channel=asked.channel,
        payment_id=asked.payment_id,
        product=asked.product,
        card_id=asked.card_id,
        subject=asked.subject,
        amount=asked.amount,
        expires_at=asked.expires_at,
        created_at=now,
        updated_at=now,
    )
    if not parts.charging.is_under_way(asked.reference):
        # From the intent on, so that a caller who gives up leaves no intent that nobody sends.
        return await parts.charging.send(asked.reference, _open_and_send(parts, draft, call))
    opened = await _open(parts, draft, call)
    if opened.is_new:
        return await parts.charging.send(asked.reference, _send(parts, opened.noun, call))
    return await _answer_repeat(parts, opened.noun, call)


async def _open(parts: Parts, draft: Charge, call: CallContext) -> Opened[Charge]:
    """Store the intent, or find the one that is there."""
    opened = await parts.writer.open_charge(draft)
    if not may_see(call.principal, opened.noun.owner):
        raise IdConflictError(field="reference", id=draft.reference)
    if opened.differs:
        raise IdConflictError(field=opened.differs, id=draft.reference)
    return opened


async def _open_and_send(parts: Parts, draft: Charge, call: CallContext) -> Charge:
    """Store the intent and call the channel, or answer the repeat of an earlier call."""
    opened = await _open(parts, draft, call)
    if opened.is_new:
        return await _send(parts, opened.noun, call)
    return await _answer_known(parts, opened.noun, call)


def check_amount(amount: Money) -> None:
    """Refuse amounts that no channel can move."""
    try:
        exponent_of(amount.currency_code)
    except UnknownCurrencyError:
        raise CurrencyUnknownError(currency_code=amount.currency_code) from None
    if not 0 < amount.amount_minor <= AMOUNT_MINOR_MAX:
        raise AmountOutOfRangeError(field="amount.amount_minor")


async def _check_channel(parts: Parts, asked: NewCharge) -> None:
    """Refuse what the channel does not take; a repeat is answered all the same."""
    try:
        parts.catalogue.find(asked.channel).check(asked.product, asked.amount)
    except PaymeshError:
        if not await parts.store.find_charges([asked.reference]):
            raise


async def _send(parts: Parts, charge: Charge, call: CallContext) -> Charge:
    """Call the channel and store what it says."""
    channel = parts.catalogue.find(charge.channel)
    failure: ChannelError | None = None
    try:
        url = parts.catalogue.callback_url_of(charge.channel)
        request = pay_request_of(charge, url, await _reveal_card(parts, charge))
        news = charge_news(await channel.guard.pay(request))
    except ChannelError as error:
        failure, news = error, failure_news(error)
    if news is None:
        # A callback may have told meanwhile what our call could not.
        known = (await parts.store.find_charges([charge.reference])).get(charge.reference, charge)
    else:
        told = Told(
            reference=charge.reference,
            news=news,
            at=parts.clock.now(),
            actor=f"CHANNEL:{charge.channel}",
            way="answer",
            cause=call.causation_id,
            # Whoever waits for the answer needs no event; whoever gave up does.
            publish=parts.charging.is_abandoned(charge.reference),
        )
        try:
            known = (await parts.writer.hear_charge(told)).noun or charge
        except PaymeshError as error:
            # "Nothing was executed" is true of the row alone: the channel was asked.
            raise outcome_unknown(charge.channel, "its answer could not be stored") from error
    if known.state is ChargeState.UNKNOWN:
        raise failure or outcome_unknown(charge.channel, "answer about something else")
    return _or_refusal(known)


async def _reveal_card(parts: Parts, charge: Charge) -> SecretStr | None:
    if not charge.card_id:
        return None
    try:
        number = await parts.cards.reveal(charge.card_id)
    except PaymeshError as error:
        raise ChannelUnavailableError(channel=charge.channel, cause="card") from error
    if number is None:
        raise DeclinedError(_CARD_GONE, channel=charge.channel, raw_code="CARD_UNBOUND")
    return number


async def _answer_repeat(parts: Parts, charge: Charge, call: CallContext) -> Charge:
    """Answer from what is known, or from the call under way in this process."""
    if charge.state is ChargeState.UNKNOWN:
        joined = await parts.charging.join(charge.reference)
        if joined is not None:
            return joined
    return await _answer_known(parts, charge, call)


async def _answer_known(parts: Parts, charge: Charge, call: CallContext) -> Charge:
    """Answer from what is known; ask where nothing is, but never send again."""
    if charge.state is not ChargeState.UNKNOWN:
        return _or_refusal(charge)
    charge, _ = await ask_charge(parts, charge, call)
    if charge.state is ChargeState.UNKNOWN:
        raise outcome_unknown(charge.channel, "repeat")
    return _or_refusal(charge)


def _or_refusal(charge: Charge) -> Charge:
    """Return the charge, unless it stands for a refusal."""
    if charge.state in (ChargeState.FAILED, ChargeState.NOT_SENT):
        raise refusal_error(charge)
    return charge
