"""What people let fail while nobody knew: asked about on, until its channel says how it ended."""

from __future__ import annotations

from desk_kit import Desk, new_case
from flow_cases import REFUND, go_on, paid, refund_was_let_fail
from payment_kit import UNKNOWN_SECONDS, PaymentKit
from paymesh.payment.v1 import EXCEPTION_STATE_RESOLVED

LONGEST_SECONDS = 3_700
"""A little more than the longest pause between two questions."""


async def _jobs(payment: PaymentKit, key: str) -> int:
    rows = await payment.kit.rows(
        "payment", "SELECT 1 FROM jobs WHERE key = $1 AND state = 'OPEN'", key
    )
    return len(rows)


async def test_a_payment_let_fail_still_takes_late_money(payment: PaymentKit, desk: Desk) -> None:
    """A person failed it by mistake: the money that came all the same is claimed."""
    case = await new_case(payment, "quick_pay")
    payment.bank.is_mute = True
    assert (await case.pay(payment.parts())).state == "UNKNOWN"
    await payment.run_due(UNKNOWN_SECONDS + 60)
    one = await desk.get((await case.exception())["id"])
    assert one.kind == "OUTCOME_UNKNOWN"
    one = await desk.decide(await desk.propose(one, "FAIL"))
    assert one.state == EXCEPTION_STATE_RESOLVED
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "FAILED"
    assert found.failure is not None
    assert found.failure.reason == "CHANNEL_OUTCOME_UNKNOWN"
    payment.bank.is_mute = False
    await go_on(case, payment.parts())
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert (found.state, found.failure) == ("SUCCEEDED", None)
    await payment.check_everything()


async def test_a_refund_let_fail_is_asked_about_until_its_channel_has_ended(
    payment: PaymentKit, desk: Desk
) -> None:
    """No callback comes: that the money went back after all is found out by asking."""
    case = await new_case(payment, "quick_pay")
    await paid(case)
    payment.bank.takes_time = True
    assert (await case.give_back(payment.parts())).state == "UNKNOWN"
    await payment.run_due(UNKNOWN_SECONDS + 60)
    one = await desk.get((await case.exception())["id"])
    one = await desk.decide(await desk.propose(one, "FAIL"))
    assert (one.kind, one.state) == ("OUTCOME_UNKNOWN", EXCEPTION_STATE_RESOLVED)
    refund = await payment.parts().refunds.find_refund(case.refund_id)
    assert refund is not None
    assert refund.state == "FAILED"
    await payment.run_due(LONGEST_SECONDS)
    assert await _jobs(payment, case.refund_id) == 1
    payment.bank.takes_time = False
    await payment.run_due(LONGEST_SECONDS)
    assert (await payment.movements(case.refund_id))["refund.late"] == [REFUND]
    assert (await case.exception())["kind"] == "REFUND_AFTER_FAILURE"
    assert await _jobs(payment, case.refund_id) == 0
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_refund_let_fail_that_the_channel_never_had_is_asked_about_once(
    payment: PaymentKit,
) -> None:
    case = await new_case(payment, "quick_pay")
    await refund_was_let_fail(case)
    payment.bank.is_silent = False
    assert await _jobs(payment, case.refund_id) == 1
    await payment.run_due(LONGEST_SECONDS)
    assert await _jobs(payment, case.refund_id) == 0
    assert "refund.late" not in await payment.movements(case.refund_id)
    await payment.check_everything()


async def test_a_payment_let_fail_is_asked_about_until_its_channel_has_ended(
    payment: PaymentKit, desk: Desk
) -> None:
    """No callback comes: that the money was taken after all is found out by asking."""
    case = await new_case(payment, "quick_pay")
    payment.bank.is_mute = True
    assert (await case.pay(payment.parts())).state == "UNKNOWN"
    await payment.run_due(UNKNOWN_SECONDS + 60)
    one = await desk.get((await case.exception())["id"])
    await desk.decide(await desk.propose(one, "FAIL"))
    await payment.run_due(LONGEST_SECONDS)
    assert await _jobs(payment, case.payment_id) == 1
    payment.bank.is_mute = False
    await payment.run_due(LONGEST_SECONDS)
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state in ("SUCCEEDED", "RETURNED")
    assert await _jobs(payment, case.payment_id) == 0
    await payment.bring_to_rest()
    await payment.check_everything()
