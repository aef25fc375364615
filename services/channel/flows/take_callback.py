"""Takes what a channel sent: verified, kept once, and let reach the row that it tells of."""

from __future__ import annotations

import hashlib
import logging

from common.telemetry import metrics
from services.channel.domain import News, Verdict
from services.channel.flows.parts import Parts
from services.channel.flows.read_result import charge_news, refund_news
from services.channel.results import (
    Acknowledgement,
    Callback,
    CallbackKind,
    ChannelOutcomeUnknownError,
    RawCallback,
)
from services.channel.store.movements import Notice, Told

_log = logging.getLogger(__name__)
_TAKEN = metrics.counter("paymesh.channel.callbacks", "Callbacks taken, by what they came to")


async def take_callback(parts: Parts, channel_code: str, raw: RawCallback) -> Acknowledgement:
    """Return what the channel wants to hear, after its callback is safely stored.

    A callback is a hint until verified: its signature by the adapter, its reference, amount and
    currency against our row. It may come before the answer to our own call, twice, and in any
    order. One that tells of a reference we never gave to this channel is kept for a person.

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
    told = _told(parts, channel_code, raw, callback)
    if callback.kind is CallbackKind.PAYMENT:
        verdict = (await parts.writer.hear_charge(told)).verdict
    else:
        verdict = (await parts.writer.hear_refund(told)).verdict
    _TAKEN.add(1, {"channel": channel_code, "verdict": verdict})
    if verdict in (Verdict.ORPHAN, Verdict.CONTRADICTED):
        _log.warning("callback of %s about %s: %s", channel_code, told.reference, verdict)
    return guard.acknowledgement


def _told(parts: Parts, channel_code: str, raw: RawCallback, callback: Callback) -> Told:
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
    )
    return Told(
        reference=callback.payment_reference if is_payment else result.reference,
        # What says nothing of the outcome is kept as "still pending".
        news=news or News(state="PENDING"),
        at=parts.clock.now(),
        actor=f"CHANNEL:{channel_code}",
        way=f"callback {notice.callback_id}",
        notice=notice,
    )
