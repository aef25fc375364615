"""A channel that changes its mind about a return: at no moment can both of its ends be booked."""

from __future__ import annotations

from contextlib import suppress

import pytest
from desk_kit import Desk, new_case
from flow_cases import AMOUNT, Case, approve, return_is_refused, unclaim_is_proposed
from flow_scenarios import RECEIVED, RETURNED, given_back, lost
from overtaking import Overtaken
from payment_kit import Crash, Fault, PaymentKit
from paymesh.payment.v1 import EXCEPTION_STATE_RESOLVED
from return_cases import (
    channel_returns,
    is_back_by_another_attempt,
    is_kept,
    other_money_is_kept,
)

from common.errors import PaymeshError

STEPS_MAX = 60


async def _about_to_be_kept(payment: PaymentKit) -> Case:
    case = await new_case(payment)
    await return_is_refused(case)
    await unclaim_is_proposed(case)
    return case


async def _check(case: Case) -> None:
    """The payer has it, and our books know: returned, or kept and then given back."""
    payment = case.payment
    await payment.bring_to_rest()
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "RETURNED"
    booked = await payment.movements(case.payment_id)
    assert booked in (RETURNED, RECEIVED | given_back(AMOUNT))
    await payment.check_everything()


async def test_a_mind_that_changes_at_any_step_of_keeping_is_booked_once(
    payment: PaymentKit,
) -> None:
    for step in range(STEPS_MAX):
        case = await _about_to_be_kept(payment)

        async def change_mind(case: Case = case) -> None:
            await channel_returns(1)(case)
            await payment.run_due()

        fault = Overtaken(step, others=change_mind)
        with suppress(PaymeshError):
            await approve(case, payment.parts(fault))
        if not fault.reached:
            await change_mind()
        await _check(case)
        if not fault.reached:
            break
    assert 5 <= step < STEPS_MAX


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_mind_that_changes_after_a_death_while_keeping_is_booked_once(
    payment: PaymentKit, after: bool
) -> None:
    for step in range(STEPS_MAX):
        case = await _about_to_be_kept(payment)
        died = False
        try:
            await approve(case, payment.parts(Fault(step, after)))
        except Crash:
            died = True
        await channel_returns(1)(case)
        await _check(case)
        if not died:
            break
    assert 5 <= step < STEPS_MAX


async def test_what_comes_back_after_its_end_is_told_each_time(
    payment: PaymentKit, desk: Desk
) -> None:
    case = await new_case(payment)
    await is_kept(case)
    loss = await payment.balance("platform", "loss")
    for _ in range(2):
        await channel_returns(1)(case)
        await payment.run_due()
    told = [one for one in await payment.exceptions(case.payment_id) if one["state"] == "OPEN"]
    assert [one["kind"] for one in told] == ["RETURN_AFTER_END"]
    assert await payment.balance("platform", "loss") == loss
    one = await desk.get(told[0]["id"])
    assert (list(one.actions), one.amount.amount_minor) == (["ACKNOWLEDGE"], AMOUNT)
    one = await desk.decide(await desk.propose(one, "ACKNOWLEDGE"))
    assert one.state == EXCEPTION_STATE_RESOLVED
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_each_end_of_other_money_is_told_once(payment: PaymentKit) -> None:
    case = await new_case(payment, "quick_pay")
    await other_money_is_kept(case)
    await channel_returns(1)(case)
    await payment.bring_to_rest()
    for end in ("conflicted", "unclaimed", "returned"):
        told = await payment.kit.events("payment", f"payment.payment.{end}.v1")
        assert [one.aggregate_id for one in told].count(case.payment_id) == 1, end


async def test_an_attempt_that_was_under_way_is_asked_about_after_another_brought_it_back(
    payment: PaymentKit,
) -> None:
    """The second attempt is accepted, and no callback ever tells how it ended."""
    case = await new_case(payment)
    await return_is_refused(case)
    payment.bank.takes_time = True
    await payment.run_due(3_600)
    await channel_returns(1)(case)
    await payment.run_due()
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert (found.state, found.return_attempt) == ("RETURNED", 2)
    await payment.run_due(7_200)
    payment.bank.takes_time = False
    await payment.bring_to_rest()
    assert await payment.movements(case.payment_id) == RETURNED | lost(AMOUNT)
    await payment.check_everything()


async def test_a_late_return_is_not_lost_while_nobody_answers(payment: PaymentKit) -> None:
    case = await new_case(payment)
    await is_back_by_another_attempt(case)
    await channel_returns(1)(case)
    payment.bank.is_silent = True
    await payment.run_due()
    assert "payment.late_return" not in await payment.movements(case.payment_id)
    payment.bank.is_silent = False
    await payment.bring_to_rest()
    assert await payment.movements(case.payment_id) == RETURNED | lost(AMOUNT)
    await payment.check_everything()
