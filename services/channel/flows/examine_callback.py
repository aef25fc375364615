"""Looks into a questioned callback: asks its channel, and compares what the three say."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from common.context import CallContext
from common.errors import NotFoundError
from common.money import Money
from services.channel.domain import Charge, ChargeState, Refund, RefundState
from services.channel.flows.parts import Parts
from services.channel.flows.query_charge import question, take_answer
from services.channel.flows.query_refund import question_refund, take_refund_answer
from services.channel.flows.read_result import outcome_unknown, standing_of
from services.channel.results import (
    CallbackKind,
    ChannelError,
    ChannelResult,
    QueryRequest,
    RefundRequest,
    State,
)
from services.channel.store.news import KeptCallback


class Finding(enum.StrEnum):
    """How a questioned callback stands after the channel was asked."""

    REFUTED = "REFUTED"
    """The channel's answer agrees with what we hold: the callback was wrong."""
    NOTHING_THERE = "NOTHING_THERE"
    """The channel does not know the reference either: the callback tells of nothing."""
    STANDS = "STANDS"
    """What we hold is wrong, or not all."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of it."""

    finding: Finding
    detail: str
    """The channel's answer beside the callback's word and ours."""
    subject_id: str = ""
    """What our charge or refund belongs to; empty where we hold neither."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What one of the three says: whether money moved, and how much, where it says so."""

    words: str
    has_moved: bool
    money: Money | None = None

    def agrees(self, other: _Said) -> bool:
        """Say whether two tell the same of the money."""
        if self.has_moved != other.has_moved:
            return False
        is_named = self.money is not None and other.money is not None
        return not (self.has_moved and is_named) or self.money == other.money


async def examine_callback(parts: Parts, callback_id: str, call: CallContext) -> Examined:
    """Return how a questioned callback stands now.

    An answer that is news of our charge or refund reaches it as that of any question does.

    Raises:
        NotFoundError: no such callback, or none that has to be looked into.
        ChannelUnknownError: its channel is there no more.
        ChannelOutcomeUnknownError: the channel did not answer.
    """
    callback = await parts.store.find_callback(callback_id)
    if callback is None:
        raise NotFoundError(resource="callback", id=callback_id)
    if callback.kind == CallbackKind.PAYMENT:
        charge = (await parts.store.find_charges([callback.reference])).get(callback.reference)
        if charge is not None and charge.channel == callback.channel:
            result = await question(parts, charge)
            after, _ = await take_answer(parts, charge, result, "query after a callback", call)
            examined = _judge(callback, result, _held_charge(charge), _held_charge(after))
            return replace(examined, subject_id=charge.payment_id)
    else:
        refund = (await parts.store.find_refunds([callback.reference])).get(callback.reference)
        if refund is not None and refund.channel == callback.channel:
            charges = await parts.store.find_charges([refund.charge_reference])
            result = await question_refund(parts, refund, charges[refund.charge_reference])
            given, _ = await take_refund_answer(parts, refund, result, call)
            examined = _judge(callback, result, _held_refund(refund), _held_refund(given))
            return replace(examined, subject_id=refund.subject_id)
    return _judge_orphan(callback, await _ask_about_orphan(parts, callback))


async def _ask_about_orphan(parts: Parts, callback: KeptCallback) -> ChannelResult:
    """Ask with what the callback told, since we hold nothing."""
    guard = parts.catalogue.find(callback.channel).guard
    # An amount of the question is only compared with the answer's, never sent.
    money = callback.money or Money("CNY", 0)
    at = callback.requested_at or callback.received_at
    try:
        if callback.kind == CallbackKind.PAYMENT:
            return await guard.query(
                QueryRequest(reference=callback.reference, requested_at=at, money=money)
            )
        return await guard.query_refund(
            RefundRequest(
                reference=callback.reference,
                requested_at=at,
                money=money,
                payment_reference=callback.payment_reference,
                payment_requested_at=at,
                payment_money=money,
                payment_channel_transaction_no=callback.channel_transaction_no,
            )
        )
    except ChannelError as error:
        raise outcome_unknown(callback.channel, error.reason) from error


def _judge(callback: KeptCallback, result: ChannelResult, held: _Said, after: _Said) -> Examined:
    """Compare the answer with what we held, what the callback told, and what we hold now."""
    answer, told = _answered(callback.channel, result), _told(callback)
    if answer.agrees(held):
        finding = Finding.REFUTED
    elif answer.agrees(told):
        finding = Finding.STANDS
    else:
        # A third thing. Where we hold that now, we know more than the callback did.
        finding = Finding.REFUTED if answer.agrees(after) else Finding.STANDS
    return Examined(
        finding, f"the channel says {answer.words}; the callback {told.words}; we held {held.words}"
    )


def _judge_orphan(callback: KeptCallback, result: ChannelResult) -> Examined:
    answer, told = _answered(callback.channel, result), _told(callback)
    if result.state is State.NOT_FOUND:
        finding = Finding.NOTHING_THERE
    else:
        # Nobody asked for it. Money that moved all the same is money that we do not hold.
        finding = Finding.STANDS if answer.has_moved else Finding.REFUTED
    return Examined(
        finding, f"the channel says {answer.words}; the callback {told.words}; we hold nothing"
    )


def _answered(channel: str, result: ChannelResult) -> _Said:
    state = standing_of(result)
    if state is None:
        raise outcome_unknown(channel, "answer about something else")
    return _said(state.value, state is State.SUCCEEDED, result.money)


def _told(callback: KeptCallback) -> _Said:
    has_moved = callback.told_state in (ChargeState.SUCCEEDED, ChargeState.CONFLICTED)
    return _said(callback.told_state, has_moved, callback.money)


def _held_charge(charge: Charge) -> _Said:
    return _said(charge.state, charge.received is not None, charge.received)


def _held_refund(refund: Refund) -> _Said:
    return _said(refund.state, refund.state is RefundState.SUCCEEDED, refund.amount)


def _said(state: str, has_moved: bool, money: Money | None) -> _Said:
    words = f"{state} {money.amount_minor} {money.currency_code}" if money else state
    return _Said(words, has_moved, money)
