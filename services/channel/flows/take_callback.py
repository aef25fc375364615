"""Takes what a channel sent: verified, kept once, and let reach the row that it tells of."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import replace

from common import context
from common.context import ActorType, CallContext, Mode, Principal
from common.telemetry import metrics
from services.channel.domain import Charge, News, Refund, Verdict
from services.channel.flows.parts import Parts
from services.channel.flows.query_charge import question, take_answer
from services.channel.flows.query_refund import question_refund, take_refund_answer
from services.channel.flows.read_result import charge_news, refund_news
from services.channel.results import (
    Acknowledgement,
    Callback,
    CallbackKind,
    ChannelOutcomeUnknownError,
    RawCallback,
)
from services.channel.store.news import Notice, Told

_log = logging.getLogger(__name__)
_TAKEN = metrics.counter("paymesh.channel.callbacks", "Callbacks taken, by what they came to")


async def take_callback(parts: Parts, channel_code: str, raw: RawCallback) -> Acknowledgement:
    """Return what the channel wants to hear, after its callback is safely stored.

    A callback is a hint until verified: its signature by the adapter, its reference, amount and
    currency against our row. It may come before the answer to our own call, twice, and in any
    order. Where its word is not enough (see `doubts_charge`), the channel is asked first, and the
    answer decides; without one, the callback is kept as DOUBTED and whoever waits for the charge
    hears that it has to be asked about. One that denies what is known, or tells of a reference we
    never gave to this channel, is kept and told of as questioned.

    Raises:
        ChannelUnknownError: no channel has this code.
        CallbackSignatureInvalidError: the channel's key did not sign it; nothing is kept.
    """
    guard = parts.catalogue.find(channel_code).guard
    try:
        callback = await guard.parse_callback(raw)
    except ChannelOutcomeUnknownError as error:
        # Signed, but not to be read by this version: let the channel come again.
        _log.error("a callback of %s cannot be read: %s", channel_code, error)
        _TAKEN.add(1, {"channel": channel_code, "verdict": "UNREADABLE"})
        return guard.refusal
    told, notice = _told(parts, channel_code, raw, callback)
    is_payment = callback.kind is CallbackKind.PAYMENT
    hear = parts.writer.hear_charge if is_payment else parts.writer.hear_refund
    verdict = (await hear(told)).verdict
    if verdict is Verdict.DOUBTED:
        ask = _ask_about_charge if is_payment else _ask_about_refund
        await ask(parts, told)
        checked = replace(told, notice=replace(notice, is_checked=True), at=parts.clock.now())
        verdict = (await hear(checked)).verdict
    _TAKEN.add(1, {"channel": channel_code, "verdict": verdict})
    if verdict in (Verdict.ORPHAN, Verdict.CONTRADICTED):
        _log.warning("callback of %s about %s: %s", channel_code, told.reference, verdict)
    return guard.acknowledgement


async def _ask_about_charge(parts: Parts, told: Told) -> None:
    """Let the channel's answer reach the charge; without one, the charge stays as it is."""
    charge = (await parts.store.find_charges([told.reference]))[told.reference]
    call = _call_of(charge)
    with suppress(ChannelOutcomeUnknownError), context.bound(_in_time(parts, call)):
        result = await question(parts, charge)
        await take_answer(parts, charge, result, "query after a callback", call)


async def _ask_about_refund(parts: Parts, told: Told) -> None:
    """Let the channel's answer reach the refund; without one, the refund stays as it is."""
    refund = (await parts.store.find_refunds([told.reference]))[told.reference]
    charges = await parts.store.find_charges([refund.charge_reference])
    call = _call_of(refund)
    with suppress(ChannelOutcomeUnknownError), context.bound(_in_time(parts, call)):
        result = await question_refund(parts, refund, charges[refund.charge_reference])
        await take_refund_answer(parts, refund, result, call)


def _call_of(noun: Charge | Refund) -> CallContext:
    """Return the circumstances of a question that a callback caused: the channel acts."""
    owner = noun.owner
    return CallContext(
        principal=Principal(
            tenant_id=owner.tenant_id,
            mode=Mode(owner.mode),
            merchant_id=owner.merchant_id,
            actor_type=ActorType.CHANNEL,
            actor_id=noun.channel,
        ),
        biz_trace_id=owner.biz_trace_id,
        causation_id=context.current().causation_id,
    )


def _in_time(parts: Parts, call: CallContext) -> CallContext:
    """Return `call` with a deadline: the channel waits for its acknowledgement."""
    patience = parts.clock.monotonic() + parts.callback_question_seconds
    deadline_at = context.current().deadline_at
    until = patience if deadline_at is None else min(patience, deadline_at)
    return replace(call, deadline_at=until)


def _told(
    parts: Parts, channel_code: str, raw: RawCallback, callback: Callback
) -> tuple[Told, Notice]:
    is_payment = callback.kind is CallbackKind.PAYMENT
    result = callback.result
    news = charge_news(result) if is_payment else refund_news(result)
    digest = hashlib.sha256(raw.body).digest()
    notice = Notice(
        callback_id=parts.ids.new("cbk"),
        channel=channel_code,
        # One without a number of its own is known by its bytes.
        notice_id=callback.notice_id or digest.hex(),
        kind=callback.kind.value,
        raw_code=result.raw_code,
        body_digest=digest,
        payment_reference=callback.payment_reference,
        requested_at=callback.requested_at,
    )
    told = Told(
        reference=callback.payment_reference if is_payment else result.reference,
        # What says nothing of the outcome is kept as "still pending".
        news=news or News(state="PENDING"),
        at=parts.clock.now(),
        actor=f"CHANNEL:{channel_code}",
        way=f"callback {notice.callback_id}",
        cause=context.current().causation_id,
        notice=notice,
    )
    return told, notice
