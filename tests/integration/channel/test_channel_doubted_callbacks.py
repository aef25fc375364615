"""One message is not believed against the rest: the channel is asked, and its answer decides."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from channel_kit import PAYMENT, ChannelKit
from played_party import CODE, notice

from common.errors import PaymeshError
from common.money import Money
from services.channel.domain import Charge, ChargeState
from services.channel.flows.charge_payer import NewCharge
from services.channel.flows.close_charge import close_charge
from services.channel.flows.query_charge import query_charge
from services.channel.results import CallbackSignatureInvalidError, State

RIGHT = Money("USD", 1000)
OTHER = Money("USD", 1001)


async def unpaid(kit: ChannelKit, *, is_paid: bool = False, takes: Money | None = None) -> Charge:
    """Return a charge that we hold as PENDING, though its payer may have paid."""
    kit.party.waits_for_payer = True
    kit.party.takes = takes
    charge = await kit.charge(kit.played())
    assert charge.state is ChargeState.PENDING
    if is_paid:
        kit.party.payer_pays(charge.reference)
    return charge


async def test_wrong_amount_that_the_channel_confirms_is_a_conflict(kit: ChannelKit) -> None:
    charge = await unpaid(kit, is_paid=True, takes=OTHER)
    raw = notice(charge.reference, money=OTHER)
    assert (await kit.call_back(CODE, raw)).body == b"thanks"
    after = await kit.stored(charge.reference)
    assert (after.state, after.received) == (ChargeState.CONFLICTED, OTHER)
    assert await kit.events(charge.reference) == [after.version]
    assert await kit.verdicts(charge.reference) == ["NOTHING_NEW"]
    assert await kit.questioned(charge.reference) == []
    # Copies are no news, and nobody is asked about a conflict any more.
    await kit.call_back(CODE, notice(charge.reference, money=OTHER, copy="2"))
    kit.party.always = "hang"
    assert (await query_charge(kit.parts, charge.reference, PAYMENT))[0] == after


async def test_conflict_holds_what_the_answer_says_was_received(kit: ChannelKit) -> None:
    """The callback names one wrong amount, the channel, asked, another: the callback is denied."""
    charge = await unpaid(kit, is_paid=True, takes=OTHER)
    await kit.call_back(CODE, notice(charge.reference, money=Money("USD", 7)))
    after = await kit.stored(charge.reference)
    assert (after.state, after.received) == (ChargeState.CONFLICTED, OTHER)
    assert await kit.verdicts(charge.reference) == ["CONTRADICTED"]
    # Nor does the amount that we asked for, told by a callback, heal a conflict.
    await kit.call_back(CODE, notice(charge.reference, money=RIGHT))
    assert await kit.stored(charge.reference) == after
    assert len(await kit.questioned(charge.reference)) == 2


async def test_wrong_amount_that_the_channel_denies_is_questioned(kit: ChannelKit) -> None:
    charge = await unpaid(kit, is_paid=True)
    for money in (OTHER, Money("EUR", 1000)):
        assert (await kit.call_back(CODE, notice(charge.reference, money=money))).status == 200
    await kit.call_back(CODE, notice(charge.reference, money=RIGHT))
    after = await kit.stored(charge.reference)
    assert (after.state, after.received) == (ChargeState.SUCCEEDED, RIGHT)
    assert await kit.events(charge.reference) == [after.version]
    assert await kit.verdicts(charge.reference) == ["CONTRADICTED", "CONTRADICTED", "NOTHING_NEW"]
    first, second = await kit.questioned(charge.reference)
    assert (first.channel, first.verdict, first.reference) == (
        CODE,
        "CONTRADICTED",
        charge.reference,
    )
    assert (first.subject_id, first.told_state) == (charge.payment_id, "SUCCEEDED")
    assert (first.money.currency_code, first.money.amount_minor) == ("USD", 1001)
    assert second.money.currency_code == "EUR"
    assert kit.party.asked.count("query") == 1  # good callbacks, and facts, ask nothing


@pytest.mark.parametrize("silence", ["away", "lost_after", "hang"])
@pytest.mark.parametrize("takes", [RIGHT, OTHER])
async def test_wrong_amount_without_an_answer_waits_for_the_next_question(
    kit: ChannelKit, silence: str, takes: Money
) -> None:
    charge = await unpaid(kit, is_paid=True, takes=takes)
    kit.party.always = silence
    raw = notice(charge.reference, money=OTHER)
    copies = await asyncio.gather(*(kit.call_back(CODE, raw) for _ in range(3)))
    assert {copy.status for copy in copies} == {200}
    doubted = await kit.stored(charge.reference)
    assert doubted == replace(charge, version=charge.version + 1)
    assert await kit.verdicts(charge.reference) == ["DOUBTED"]
    # Whoever waits for the charge hears that it has to be asked about.
    assert await kit.events(charge.reference) == [doubted.version]
    assert await kit.questioned(charge.reference) == []
    kit.party.always = "ok"
    after, _ = await query_charge(kit.parts, charge.reference, PAYMENT)
    assert after.state == ("SUCCEEDED" if takes == RIGHT else "CONFLICTED")
    assert after.received == takes
    assert await kit.events(charge.reference) == [doubted.version, after.version]


async def test_copy_of_a_doubted_callback_asks_nobody_again(kit: ChannelKit) -> None:
    """One that was taken is known by its number, whatever became of the question after it."""
    charge = await unpaid(kit, is_paid=True)
    kit.party.always = "away"
    raw = notice(charge.reference, money=OTHER)
    await kit.call_back(CODE, raw)
    doubted = await kit.stored(charge.reference)
    await kit.call_back(CODE, raw)
    assert kit.party.asked.count("query") == 1
    assert await kit.stored(charge.reference) == doubted
    assert await kit.events(charge.reference) == [doubted.version]


async def test_no_transaction_is_open_while_a_callback_waits_for_the_answer(
    kit: ChannelKit,
) -> None:
    charge = await unpaid(kit, is_paid=True)
    seen: list[int] = []

    async def look() -> None:
        rows = await kit.rows(
            "SELECT count(*) AS open FROM pg_stat_activity WHERE xact_start IS NOT NULL AND"
            " datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        seen.append(rows[0]["open"])

    kit.party.on_question = look
    await kit.call_back(CODE, notice(charge.reference, money=OTHER))
    assert seen == [0]


async def test_late_wrong_amount_without_an_answer_is_questioned(kit: ChannelKit) -> None:
    """Nobody asks about a charge that has ended, so its callback has to be looked into."""
    charge = await unpaid(kit)
    await close_charge(kit.parts, charge.reference, PAYMENT)
    closed = await kit.stored(charge.reference)
    kit.party.always = "away"
    await kit.call_back(CODE, notice(charge.reference, money=OTHER))
    assert await kit.stored(charge.reference) == closed
    assert await kit.verdicts(charge.reference) == ["CONTRADICTED"]
    assert len(await kit.questioned(charge.reference)) == 1


@pytest.mark.parametrize("told", ["CLOSED", "FAILED"])
@pytest.mark.parametrize("truth", [State.PENDING, State.CLOSED, State.SUCCEEDED])
async def test_end_without_money_is_what_the_channel_says_when_asked(
    kit: ChannelKit, told: str, truth: State
) -> None:
    charge = await unpaid(kit, is_paid=truth is State.SUCCEEDED)
    kit.party.ledger.charges[charge.reference].state = truth
    await kit.call_back(CODE, notice(charge.reference, told))
    after = await kit.stored(charge.reference)
    assert after.state == truth.value
    verdicts = {
        State.PENDING: "DOUBTED",
        State.CLOSED: "NOTHING_NEW",
        State.SUCCEEDED: "CONTRADICTED",
    }
    assert await kit.verdicts(charge.reference) == [verdicts[truth]]
    assert await kit.events(charge.reference) == [after.version]
    assert len(await kit.questioned(charge.reference)) == (truth is State.SUCCEEDED)


async def _by_charge(kit: ChannelKit, asked: NewCharge) -> Charge:
    return await kit.charge(asked)


async def _by_query(kit: ChannelKit, asked: NewCharge) -> Charge:
    kit.party.plan = ["lost_after"]
    with pytest.raises(PaymeshError):
        await kit.charge(asked)
    return (await query_charge(kit.parts, asked.reference, PAYMENT))[0]


async def _by_close(kit: ChannelKit, asked: NewCharge) -> Charge:
    kit.party.plan = ["lost_after"]
    with pytest.raises(PaymeshError):
        await kit.charge(asked)
    return (await close_charge(kit.parts, asked.reference, PAYMENT))[0]


@pytest.mark.parametrize("ask", [_by_charge, _by_query, _by_close])
async def test_wrong_amount_in_an_answer_to_us_is_a_conflict_at_once(
    kit: ChannelKit, ask: object
) -> None:
    kit.party.takes = OTHER
    asked = kit.played()
    charge = await ask(kit, asked)  # type: ignore[operator]
    assert (charge.state, charge.received) == (ChargeState.CONFLICTED, OTHER)


async def test_wrong_amount_of_an_unpaid_code_is_no_money(kit: ChannelKit) -> None:
    """It says what the payer would pay. Nothing was received, so there is nothing to return."""
    charge = await unpaid(kit, takes=OTHER)
    charge, _ = await query_charge(kit.parts, charge.reference, PAYMENT)
    assert (charge.state, charge.received) == (ChargeState.PENDING, None)
    charge, _ = await close_charge(kit.parts, charge.reference, PAYMENT)
    assert (charge.state, charge.received) == (ChargeState.CLOSED, None)


async def test_wrong_signature_asks_nobody_and_leaves_nothing(kit: ChannelKit) -> None:
    charge = await unpaid(kit, is_paid=True)
    kit.party.asked.clear()
    with pytest.raises(CallbackSignatureInvalidError):
        await kit.call_back(CODE, notice(charge.reference, money=OTHER, signed_by="thief"))
    assert kit.party.asked == []
    assert await kit.stored(charge.reference) == charge
    assert await kit.verdicts(charge.reference) == []
