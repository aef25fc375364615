"""Asks a channel what became of a refund."""

from __future__ import annotations

from common.context import CallContext
from common.errors import NotFoundError
from services.channel.domain import (
    REFUND_ENDED,
    Charge,
    News,
    Refund,
    RefundState,
    Refusal,
)
from services.channel.flows.parts import Parts, may_see
from services.channel.flows.read_result import outcome_unknown, refund_news
from services.channel.results import (
    ChannelError,
    ChannelResult,
    ChannelUnavailableError,
    RefundRequest,
    State,
)
from services.channel.store.news import Told


async def query_refund(parts: Parts, reference: str, call: CallContext) -> tuple[Refund, bool]:
    """Return a refund after its channel was asked where that is needed.

    The second value is True when the channel does not know the reference: while its requests still
    live that means nothing; after that the same reference may be sent again.

    Raises:
        NotFoundError: no such refund, or another merchant's.
        ChannelOutcomeUnknownError: the question was not answered.
    """
    refund = (await parts.store.find_refunds([reference])).get(reference)
    if refund is None or not may_see(call.principal, refund.owner):
        raise NotFoundError(resource="refund", id=reference)
    charges = await parts.store.find_charges([refund.charge_reference])
    return await ask_refund(parts, refund, charges[refund.charge_reference], call)


async def ask_refund(
    parts: Parts, refund: Refund, charge: Charge, call: CallContext
) -> tuple[Refund, bool]:
    """Ask where that is needed and let the answer reach the row; see `query_refund`."""
    if refund.state in REFUND_ENDED:
        return refund, refund.state is RefundState.NOT_SENT
    result = await question_refund(parts, refund, charge)
    return await take_refund_answer(parts, refund, result, call)


async def question_refund(parts: Parts, refund: Refund, charge: Charge) -> ChannelResult:
    """Ask the channel how a refund stands, whatever we hold.

    Raises:
        ChannelOutcomeUnknownError: the question failed; the refund stays as open as it was.
    """
    guard = parts.catalogue.find(refund.channel).guard
    try:
        return await guard.query_refund(request_of(refund, charge))
    except ChannelError as error:
        raise outcome_unknown(refund.channel, error.reason) from error


async def take_refund_answer(
    parts: Parts, refund: Refund, result: ChannelResult, call: CallContext
) -> tuple[Refund, bool]:
    """Let the answer to a question reach the row; see `query_refund`."""
    now = parts.clock.now()
    news = refund_news(result)
    of_version = 0
    if result.state is State.NOT_FOUND:
        if refund.state in REFUND_ENDED:
            return refund, refund.state is RefundState.NOT_SENT
        # As for charges: a request may be on its way for so long after it was sent, or accepted.
        if now <= refund.updated_at + parts.catalogue.find(refund.channel).request_life:
            return refund, refund.state is RefundState.UNKNOWN
        refusal = Refusal(reason=ChannelUnavailableError.reason, raw_code=result.raw_code)
        news = News(state=RefundState.NOT_SENT, refusal=refusal)
        # A conclusion of ours, void when the refund has moved (or was sent again) meanwhile.
        of_version = refund.version
    if news is None:
        return refund, False
    told = Told(
        reference=refund.reference,
        news=news,
        at=now,
        actor=call.principal.actor,
        way="query",
        cause=call.causation_id,
        of_version=of_version,
    )
    refund = (await parts.writer.hear_refund(told)).noun or refund
    return refund, refund.state is RefundState.NOT_SENT


def request_of(refund: Refund, charge: Charge, notify_url: str = "") -> RefundRequest:
    """Return the request for a refund; a question after it is the same request."""
    return RefundRequest(
        reference=refund.reference,
        requested_at=refund.created_at,
        money=refund.amount,
        payment_reference=charge.reference,
        payment_requested_at=charge.created_at,
        payment_money=charge.received or charge.amount,
        payment_channel_transaction_no=charge.channel_transaction_no,
        reason=refund.words,
        notify_url=notify_url,
    )
