"""A code whose answer was lost is asked for again under its reference, so that it can be paid."""

from __future__ import annotations

from datetime import timedelta

import pytest
from channel_kit import PAYMENT, ChannelKit

from services.channel.domain import Charge, ChargeState, News
from services.channel.flows.charge_payer import NewCharge
from services.channel.flows.close_charge import close_charge
from services.channel.flows.query_charge import query_charge
from services.channel.results import ChannelOutcomeUnknownError
from services.channel.store.news import Told

# The sandbox has made the code, or has not; either way we were not told.
MISDEEDS = ("swallow", "cut", "drop", "garbage")


async def _lose(kit: ChannelKit, misdeed: str, **changes: object) -> NewCharge:
    """Ask for a code whose answer is lost."""
    asked = kit.qr(**changes)  # type: ignore[arg-type]
    kit.proxy.plan = [misdeed]
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    kit.proxy.plan = []
    assert (await kit.stored(asked.reference)).state is ChargeState.UNKNOWN
    return asked


async def _ask(kit: ChannelKit, asked: NewCharge) -> Charge:
    return (await query_charge(kit.parts, asked.reference, PAYMENT))[0]


@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_asking_finds_the_code_again_and_it_is_paid_once(
    kit: ChannelKit, misdeed: str
) -> None:
    asked = await _lose(kit, misdeed)
    charge = await _ask(kit, asked)
    assert charge.state is ChargeState.PENDING
    assert charge.qr_content
    again = await _ask(kit, asked)
    assert (again.state, again.qr_content) == (charge.state, charge.qr_content)
    await kit.scan(charge.qr_content)
    assert (await kit.becomes(asked.reference, "SUCCEEDED")).received == asked.amount
    assert await kit.movements(asked.reference) == 1


async def test_repeating_the_charge_brings_its_code_too(kit: ChannelKit) -> None:
    asked = await _lose(kit, "swallow")
    charge = await kit.charge(asked)
    assert charge.state is ChargeState.PENDING
    assert charge.qr_content


async def test_a_repeat_whose_answer_is_lost_leaves_the_charge_as_it_was(kit: ChannelKit) -> None:
    asked = await _lose(kit, "swallow")
    kit.proxy.plan = ["ok", "swallow"]
    charge = await _ask(kit, asked)
    assert not charge.qr_content
    assert charge.state in (ChargeState.UNKNOWN, ChargeState.PENDING)
    assert (await _ask(kit, asked)).qr_content


async def test_no_code_is_asked_for_once_it_could_not_be_paid(kit: ChannelKit) -> None:
    ends = kit.clock.now() + timedelta(seconds=30)
    asked = await _lose(kit, "drop", expires_at=ends)
    kit.clock.ahead = timedelta(seconds=40)
    assert not (await _ask(kit, asked)).qr_content


async def test_a_code_that_was_closed_meanwhile_is_not_shown(kit: ChannelKit) -> None:
    asked = await _lose(kit, "swallow")
    row = await kit.stored(asked.reference)
    told = Told(
        reference=row.reference,
        news=News(state=ChargeState.CLOSED),
        at=kit.clock.now(),
        actor="SERVICE:payment",
        way="close",
    )
    await kit.parts.writer.hear_charge(told)
    closed = await _ask(kit, asked)
    assert (closed.state, closed.qr_content) == (ChargeState.CLOSED, "")
    assert (await close_charge(kit.parts, asked.reference, PAYMENT))[0].state is ChargeState.CLOSED


async def test_a_card_is_never_charged_again_for_being_asked_about(kit: ChannelKit) -> None:
    """Only what shows a code is asked for again: a card would be charged by it."""
    asked = kit.played()
    kit.party.plan = ["lost_before"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    kit.party.asked.clear()
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.UNKNOWN, True)
    assert kit.party.asked == ["query"]
