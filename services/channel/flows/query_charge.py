"""Asks a channel what became of a charge."""

from __future__ import annotations

from contextlib import suppress

from pydantic import SecretStr

from common.context import CallContext
from common.errors import NotFoundError
from services.channel.domain import (
    CHARGE_ENDED,
    CODE_LIFE,
    Charge,
    ChargeState,
    News,
    Refusal,
    unseen_charge_state,
)
from services.channel.flows.parts import Parts, may_see
from services.channel.flows.read_result import charge_news, outcome_unknown
from services.channel.results import (
    ChannelError,
    ChannelResult,
    ChannelUnavailableError,
    PayRequest,
    QueryRequest,
    State,
)
from services.channel.store.news import Told


async def query_charge(parts: Parts, reference: str, call: CallContext) -> tuple[Charge, bool]:
    """Return a charge after its channel was asked where that is needed.

    The second value is True when the channel does not know the reference and that is no failure
    yet.

    Raises:
        NotFoundError: no such charge, or another merchant's.
        ChannelOutcomeUnknownError: the question was not answered.
    """
    charge = await find_visible_charge(parts, reference, call)
    if charge.state is ChargeState.NOT_SENT:
        return await fail_unsent(parts, charge, call), False
    return await ask_charge(parts, charge, call)


async def fail_unsent(parts: Parts, charge: Charge, call: CallContext) -> Charge:
    """Let a charge that surely was not sent be failed for good: who asks gives it up for that.

    A repeat of the first call may be on its way, and would take money for what was given up. When
    it came first, the charge is what that has made of it.
    """
    told = Told(
        reference=charge.reference,
        news=News(state=ChargeState.FAILED, refusal=charge.refusal),
        at=parts.clock.now(),
        actor=call.principal.actor,
        way="query",
        cause=call.causation_id,
        of_version=charge.version,
    )
    return (await parts.writer.hear_charge(told)).noun or charge


async def find_visible_charge(parts: Parts, reference: str, call: CallContext) -> Charge:
    """Return a charge that the caller may see; raises NotFoundError."""
    charge = (await parts.store.find_charges([reference])).get(reference)
    if charge is None or not may_see(call.principal, charge.owner):
        raise NotFoundError(resource="charge", id=reference)
    return charge


def is_open(charge: Charge) -> bool:
    """Say whether asking the channel can bring news."""
    return charge.state not in CHARGE_ENDED and charge.state is not ChargeState.CONFLICTED


async def ask_charge(parts: Parts, charge: Charge, call: CallContext) -> tuple[Charge, bool]:
    """Ask where that is needed and let the answer reach the row; see `query_charge`."""
    if not is_open(charge):
        return charge, False
    result = await question(parts, charge)
    if result.state in (State.NOT_FOUND, State.PENDING) and _lacks_its_code(parts, charge):
        return await _ask_for_code(parts, charge, result, call)
    return await take_answer(parts, charge, result, "query", call)


def _lacks_its_code(parts: Parts, charge: Charge) -> bool:
    """Say whether a payer could still pay by a code whose answer was lost."""
    if charge.qr_content or not parts.catalogue.find(charge.channel).guard.shows_codes:
        return False
    return parts.clock.now() < (charge.expires_at or charge.created_at + CODE_LIFE)


async def _ask_for_code(
    parts: Parts, charge: Charge, answer: ChannelResult, call: CallContext
) -> tuple[Charge, bool]:
    """Ask for the code again, under the same reference, so that the payer can pay.

    Only a code, or that it was paid, is believed of a repeat. Where it is refused, perhaps because
    the first request came through and has ended, the answer to the question stands.
    """
    result, way = answer, "query"
    with suppress(ChannelError):
        url = parts.catalogue.callback_url_of(charge.channel)
        guard = parts.catalogue.find(charge.channel).guard
        told = await guard.pay(pay_request_of(charge, url))
        if told.state in (State.PENDING, State.SUCCEEDED, State.CONFLICT):
            result, way = told, "asked for the code again"
    return await take_answer(parts, charge, result, way, call)


def pay_request_of(
    charge: Charge, notify_url: str, card_number: SecretStr | None = None
) -> PayRequest:
    """Return the request for a charge; a repeat is the same request."""
    return PayRequest(
        reference=charge.reference,
        requested_at=charge.created_at,
        money=charge.amount,
        subject=charge.subject or charge.payment_id,
        notify_url=notify_url,
        expires_at=charge.expires_at,
        card_number=card_number,
    )


async def question(parts: Parts, charge: Charge) -> ChannelResult:
    """Ask the channel how a charge stands, whatever we hold.

    Raises:
        ChannelOutcomeUnknownError: the question failed, whatever that error says of itself: the
            charge stays as open as it was.
    """
    guard = parts.catalogue.find(charge.channel).guard
    try:
        return await guard.query(question_of(charge))
    except ChannelError as error:
        raise outcome_unknown(charge.channel, error.reason) from error


def question_of(charge: Charge) -> QueryRequest:
    """Return the question after a charge."""
    return QueryRequest(
        reference=charge.reference, requested_at=charge.created_at, money=charge.amount
    )


async def take_answer(
    parts: Parts, charge: Charge, result: ChannelResult, way: str, call: CallContext
) -> tuple[Charge, bool]:
    """Let the answer to a question (or close) reach the row; see `query_charge`."""
    now = parts.clock.now()
    news = charge_news(result)
    of_version = 0
    if result.state is State.NOT_FOUND:
        if not is_open(charge):
            return charge, False
        life = parts.catalogue.find(charge.channel).request_life
        state = unseen_charge_state(charge, now, life)
        if not state:
            return charge, charge.state is ChargeState.UNKNOWN
        refusal = Refusal(reason=ChannelUnavailableError.reason, raw_code=result.raw_code)
        news = News(state=state, refusal=refusal)
        # A conclusion of ours, void when the charge has moved (or was sent again) meanwhile.
        of_version = charge.version
    if news is None:
        return charge, False
    told = Told(
        reference=charge.reference,
        news=news,
        at=now,
        actor=call.principal.actor,
        way=way,
        cause=call.causation_id,
        of_version=of_version,
    )
    heard = await parts.writer.hear_charge(told)
    return heard.noun or charge, False
