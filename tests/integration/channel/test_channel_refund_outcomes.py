"""Refunds under fault: refused after acceptance, other amounts, unseen, and never given twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from channel_kit import PAYMENT, ChannelKit
from played_party import CODE, notice

from common.errors import PaymeshError
from common.money import Money
from services.channel.domain import Charge, ChargeState, Refund, RefundState
from services.channel.errors import RefusedByChannelError
from services.channel.flows.charge_payer import charge_payer
from services.channel.flows.query_charge import query_charge
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.results import (
    ChannelOutcomeUnknownError,
    ChannelUnavailableError,
    State,
)

PART = Money("USD", 400)
OTHER = Money("USD", 401)
LIFE = timedelta(seconds=121)


async def paid(kit: ChannelKit) -> Charge:
    """Return a charge of 10.00 that was paid."""
    charge = await kit.charge(kit.played())
    assert charge.state is ChargeState.SUCCEEDED
    return charge


async def new_refund(kit: ChannelKit) -> NewRefund:
    """Return a wish to give 4.00 back."""
    return NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=(await paid(kit)).reference,
        subject_id=kit.parts.ids.new("rfd"),
        words="",
        amount=PART,
    )


async def stored(kit: ChannelKit, asked: NewRefund) -> Refund:
    """Return the row."""
    return (await kit.parts.store.find_refunds([asked.reference]))[asked.reference]


async def in_processing(kit: ChannelKit) -> NewRefund:
    """Return a refund that the party has accepted and not ended."""
    kit.party.processes_refunds = True
    asked = await new_refund(kit)
    assert (await refund_payer(kit.parts, asked, PAYMENT)).state is RefundState.PENDING
    return asked


async def _by_query(kit: ChannelKit, reference: str) -> None:
    await query_refund(kit.parts, reference, PAYMENT)


async def _by_callback(kit: ChannelKit, reference: str) -> None:
    await kit.call_back(CODE, notice(reference, "FAILED", kind="REFUND"))


@pytest.mark.parametrize("learn", [_by_query, _by_callback])
async def test_refusal_after_acceptance_is_told(
    kit: ChannelKit, learn: Callable[[ChannelKit, str], Awaitable[None]]
) -> None:
    asked = await in_processing(kit)
    kit.party.end_refund(asked.reference, is_refused=True)
    await learn(kit, asked.reference)
    refund = await stored(kit, asked)
    assert refund.state is RefundState.FAILED
    assert await kit.events(asked.reference) == [refund.version]
    assert await kit.questioned(asked.reference) == []
    with pytest.raises(RefusedByChannelError):
        await refund_payer(kit.parts, asked, PAYMENT)
    assert kit.party.asked.count("refund") == 1


async def test_refusal_that_the_channel_denies_leaves_the_refund_open(kit: ChannelKit) -> None:
    asked = await in_processing(kit)
    before = await stored(kit, asked)
    await _by_callback(kit, asked.reference)
    after = await stored(kit, asked)
    assert (after.state, after.version) == (RefundState.PENDING, before.version + 1)
    assert await kit.verdicts(asked.reference) == ["DOUBTED"]
    assert await kit.events(asked.reference) == [after.version]
    kit.party.end_refund(asked.reference)
    await kit.call_back(CODE, notice(asked.reference, kind="REFUND"))
    await kit.call_back(CODE, notice(asked.reference, "FAILED", kind="REFUND", copy="2"))
    assert (await stored(kit, asked)).state is RefundState.SUCCEEDED
    assert sorted(await kit.verdicts(asked.reference)) == ["CHANGED", "CONTRADICTED", "DOUBTED"]
    assert len(await kit.questioned(asked.reference)) == 1


async def test_refusal_without_an_answer_is_decided_by_the_next_question(kit: ChannelKit) -> None:
    asked = await in_processing(kit)
    kit.party.always = "away"
    await _by_callback(kit, asked.reference)
    assert (await stored(kit, asked)).state is RefundState.PENDING
    assert len(await kit.events(asked.reference)) == 1
    kit.party.always = "ok"
    kit.party.end_refund(asked.reference)
    refund, _ = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert refund.state is RefundState.SUCCEEDED


@pytest.mark.parametrize("is_refused", [True, False])
async def test_repeat_of_an_accepted_refund_asks_how_it_ended(
    kit: ChannelKit, is_refused: bool
) -> None:
    """Found by simulation: who only repeats, as a return does, would wait for ever otherwise."""
    asked = await in_processing(kit)
    kit.party.end_refund(asked.reference, is_refused=is_refused)
    if is_refused:
        with pytest.raises(RefusedByChannelError):
            await refund_payer(kit.parts, asked, PAYMENT)
    else:
        await refund_payer(kit.parts, asked, PAYMENT)
    wanted = RefundState.FAILED if is_refused else RefundState.SUCCEEDED
    assert (await stored(kit, asked)).state is wanted
    assert kit.party.asked.count("refund") == 1


async def test_late_success_after_a_refusal_is_told(kit: ChannelKit) -> None:
    asked = await in_processing(kit)
    kit.party.end_refund(asked.reference, is_refused=True)
    await query_refund(kit.parts, asked.reference, PAYMENT)
    kit.party.end_refund(asked.reference)
    await kit.call_back(CODE, notice(asked.reference, kind="REFUND"))
    refund = await stored(kit, asked)
    assert refund.state is RefundState.SUCCEEDED
    assert await kit.events(asked.reference) == [refund.version - 1, refund.version]


async def test_other_amount_in_our_own_answers_leaves_the_refund_open(kit: ChannelKit) -> None:
    asked = await new_refund(kit)
    kit.party.takes = OTHER
    with pytest.raises(ChannelOutcomeUnknownError):
        await refund_payer(kit.parts, asked, PAYMENT)
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund.state, is_unseen) == (RefundState.UNKNOWN, False)
    with pytest.raises(ChannelOutcomeUnknownError):
        await refund_payer(kit.parts, asked, PAYMENT)
    await kit.call_back(CODE, notice(asked.reference, money=OTHER, kind="REFUND"))
    assert (await stored(kit, asked)).state is RefundState.UNKNOWN
    assert await kit.verdicts(asked.reference) == ["CONTRADICTED"]
    assert len(await kit.questioned(asked.reference)) == 1
    assert kit.party.ledger.refunds[asked.reference].executed == 1


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_unseen_refund_is_sent_again_only_after_its_requests_life(
    kit: ChannelKit, is_accepted: bool
) -> None:
    if is_accepted:
        asked = await in_processing(kit)
        kit.party.forget(asked.reference)
        kit.party.processes_refunds = False
    else:
        asked = await new_refund(kit)
        kit.party.plan = ["lost_before"]
        with pytest.raises(ChannelOutcomeUnknownError):
            await refund_payer(kit.parts, asked, PAYMENT)
    before = await stored(kit, asked)
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund, is_unseen) == (before, not is_accepted)
    kit.clock.ahead = LIFE
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund.state, is_unseen) == (RefundState.NOT_SENT, True)
    assert (await refund_payer(kit.parts, asked, PAYMENT)).state is RefundState.SUCCEEDED
    assert kit.party.ledger.refunds[asked.reference].executed == 1


async def test_old_conclusion_does_not_end_a_refund_that_was_sent_again(kit: ChannelKit) -> None:
    """Two janitors ask; while one waits for its answer, the other lets it be sent once more."""
    asked = await new_refund(kit)
    kit.party.plan = ["lost_before"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await refund_payer(kit.parts, asked, PAYMENT)
    kit.clock.ahead = LIFE

    async def meanwhile() -> None:
        refund, _ = await query_refund(kit.parts, asked.reference, PAYMENT)
        assert refund.state is RefundState.NOT_SENT
        kit.party.plan = ["lost_before"]
        with pytest.raises(ChannelOutcomeUnknownError):
            await refund_payer(kit.parts, asked, PAYMENT)

    kit.party.on_question = meanwhile
    refund, _ = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert refund.state is RefundState.UNKNOWN
    assert (await stored(kit, asked)).state is RefundState.UNKNOWN


async def test_charge_that_was_sent_again_lives_from_then_on(kit: ChannelKit) -> None:
    asked = kit.played()
    kit.party.plan = ["away"]
    with pytest.raises(ChannelUnavailableError):
        await kit.charge(asked)
    kit.clock.ahead = LIFE
    kit.party.plan = ["lost_before"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await charge_payer(kit.parts, asked, PAYMENT)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.UNKNOWN, True)
    kit.clock.ahead = 2 * LIFE
    charge, _ = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.FAILED


@pytest.mark.parametrize("misdeed", ["ok", "lost_before", "lost_after", "away"])
async def test_refund_asked_for_again_and_again_is_given_once(
    new_kit: Callable[[], Awaitable[ChannelKit]], misdeed: str
) -> None:
    one, other = await new_kit(), await new_kit()
    asked = await new_refund(one)
    one.party.plan = [misdeed]
    for _ in range(3):
        await asyncio.gather(
            *(refund_payer(kit.parts, asked, PAYMENT) for kit in (one, other) for _ in range(4)),
            return_exceptions=True,
        )
    for kit in (one, other):
        kit.clock.ahead = LIFE
    await query_refund(one.parts, asked.reference, PAYMENT)
    refund = await refund_payer(other.parts, asked, PAYMENT)
    assert refund.state is RefundState.SUCCEEDED
    assert one.party.ledger.refunds[asked.reference].executed == 1
    if misdeed in ("ok", "lost_after"):
        # Not by the party's own grace: what may have arrived is asked about, and not sent again.
        assert one.party.asked.count("refund") == 1


async def test_conflicted_charge_gives_back_what_was_received(kit: ChannelKit) -> None:
    kit.party.takes = Money("USD", 1500)
    charge = await kit.charge(kit.played())
    assert charge.state is ChargeState.CONFLICTED
    kit.party.takes = None
    asked = NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=charge.reference,
        subject_id=charge.payment_id,
        words="",
        amount=Money("USD", 1500),
    )
    assert (await refund_payer(kit.parts, asked, PAYMENT)).state is RefundState.SUCCEEDED
    assert kit.party.ledger.refunds[asked.reference].state is State.SUCCEEDED
    with pytest.raises(PaymeshError, match="left to give back"):
        await refund_payer(
            kit.parts,
            NewRefund(
                reference=kit.new_reference("rch"),
                charge_reference=charge.reference,
                subject_id=charge.payment_id,
                words="",
                amount=Money("USD", 1),
            ),
            PAYMENT,
        )
