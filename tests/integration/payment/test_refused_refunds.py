"""What the channel service refuses before it stores anything ends; what it cannot say is told."""

from __future__ import annotations

import pytest
from desk_kit import Desk, new_case
from flow_cases import REFUND, Case, claim_is_lost, go_on, paid
from payment_kit import PaymentKit
from paymesh.payment.v1 import EXCEPTION_STATE_RESOLVED
from paymesh.type.v1 import Money

from common.errors import (
    AmountOutOfRangeError,
    IdConflictError,
    PaymeshError,
    StateConflictError,
)
from services.channel.errors import CurrencyMismatchError, RefundExceedsChargeError
from services.payment.domain.payments import Refund, refund_reference

REFUSALS = (
    RefundExceedsChargeError(refundable_minor=0),
    StateConflictError(resource="charge", state="UNKNOWN"),
    CurrencyMismatchError(expected="EUR", got="USD"),
    AmountOutOfRangeError(field="amount.amount_minor"),
)


async def _refund(case: Case) -> Refund:
    found = await case.payment.parts().refunds.find_refund(case.refund_id)
    assert found is not None
    return found


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: error.reason)
async def test_refusing_without_a_row_fails_the_refund_and_releases_its_hold(
    payment: PaymentKit, refusal: PaymeshError
) -> None:
    case = await new_case(payment, "quick_pay")
    await paid(case)
    before = await payment.balance(payment.merchant_id, "merchant_pending")
    payment.bank.rejects = refusal
    refund = await case.give_back(payment.parts())
    assert refund.state == "FAILED"
    assert refund.failure is not None
    assert refund.failure.reason == refusal.reason
    assert await payment.balance(payment.merchant_id, "merchant_pending") == before
    made = await payment.parts().store.find_payment(case.payment_id)
    assert made is not None
    assert (made.refunded_minor, made.refunding_minor) == (0, 0)
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_another_refund_under_the_same_reference_is_told_at_once(
    payment: PaymentKit, desk: Desk
) -> None:
    """Nobody can say what became of ours by asking, so nothing is guessed, and a person decides."""
    case = await new_case(payment, "quick_pay")
    await paid(case)
    payment.bank.rejects = IdConflictError(field="amount.amount_minor", id="ref")
    assert (await case.give_back(payment.parts())).state == "UNKNOWN"
    await payment.run_due(60)
    (found,) = await payment.exceptions(case.refund_id)
    assert (found["kind"], found["default_action"]) == ("OUTCOME_UNKNOWN", "ASK")
    one = await desk.get(found["id"])
    payment.bank.rejects = None
    one = await desk.decide(await desk.propose(one, "FAIL"))
    assert one.state == EXCEPTION_STATE_RESOLVED
    assert (await _refund(case)).state == "FAILED"
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_another_amount_under_our_reference_ends_no_refund(payment: PaymentKit) -> None:
    case = await new_case(payment, "quick_pay")
    await paid(case)
    bank, reference = payment.bank, refund_reference(case.refund_id)
    bank.takes_time = True
    await case.give_back(payment.parts())
    bank.takes_time = False
    bank.refunds[reference] = Money(currency_code="USD", amount_minor=REFUND - 1)
    await payment.run_due(60)
    assert (await _refund(case)).state == "UNKNOWN"
    told = [one["detail"] for one in await payment.exceptions(case.refund_id)]
    assert told == ["the channel service has another refund under this reference"]
    bank.refunds[reference] = Money(currency_code="USD", amount_minor=REFUND)
    bank.refunded[reference] = bank.refunds[reference]
    await payment.bring_to_rest()
    assert (await _refund(case)).state == "SUCCEEDED"
    await payment.check_everything()


async def test_refusing_a_return_without_a_row_keeps_it_for_the_payer_in_the_end(
    payment: PaymentKit,
) -> None:
    case = await new_case(payment)
    await claim_is_lost(case)
    payment.bank.rejects = RefundExceedsChargeError(refundable_minor=0)
    await go_on(case, payment.parts())
    assert (await case.exception())["kind"] == "RETURN_REFUSED"
    await payment.bring_to_rest()
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "UNCLAIMED"
    await payment.check_everything()
