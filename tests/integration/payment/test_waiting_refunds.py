"""A refund that the merchant's balance does not cover waits for it, and not for ever."""

from __future__ import annotations

from flow_cases import (
    AMOUNT,
    REFUND,
    Case,
    approve,
    hold_is_unknown,
    merchant_is_poor,
    paid,
)
from payment_kit import PaymentKit

from common.context import bound
from services.payment.domain.payments import refund_reference
from services.payment.domain.postings import Refused, hold_chain, hold_sources
from services.payment.domain.states import RefundState
from services.payment.flows.refund_payment import advance_refund_by_id
from services.payment.peers import AccountNames


async def _case(payment: PaymentKit) -> Case:
    payment.bank.behave()
    return Case(payment, (await payment.new_order(AMOUNT)).id, "balance")


async def test_a_refund_without_funds_waits_and_goes_on_when_they_are_there(
    payment: PaymentKit,
) -> None:
    case = await _case(payment)
    await paid(case)
    before = await payment.balance(payment.merchant_id, "merchant_pending")
    taken = await payment.empty_merchant()
    waiting = await case.give_back(payment.parts())
    assert waiting.state is RefundState.WAITING_FUNDS
    told = await payment.kit.events("payment", "payment.refund.waiting.v1")
    assert [event.aggregate_id for event in told].count(case.refund_id) == 1
    with bound(payment.call()):
        again = await advance_refund_by_id(payment.parts(), case.refund_id)
    assert again is not None
    assert again.state is RefundState.WAITING_FUNDS
    await payment.fill_merchant(taken)
    await payment.bring_to_rest()
    done = await payment.parts().refunds.find_refund(case.refund_id)
    assert done is not None
    assert done.state is RefundState.SUCCEEDED
    after = await payment.balance(payment.merchant_id, "merchant_pending")
    assert before - after == REFUND - done.fee_returned_minor
    await payment.check_everything()


async def test_waiting_for_funds_ends_with_its_time_and_frees_the_cap(payment: PaymentKit) -> None:
    case = await _case(payment)
    await merchant_is_poor(case)
    taken = await payment.empty_merchant()
    days = payment.parts().settings.waiting_funds_days
    await payment.run_due((days * 24 + 1) * 3600)
    failed = await payment.parts().refunds.find_refund(case.refund_id)
    assert failed is not None
    assert failed.state is RefundState.FAILED
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert (found.refunded_minor, found.refunding_minor, found.fee_given_back_minor) == (0, 0, 0)
    await payment.fill_merchant(taken)
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_hold_that_comes_after_its_refund_failed_is_refused(payment: PaymentKit) -> None:
    """The void of a hold that never came leaves a tombstone in the ledger."""
    case = Case(payment, (await payment.new_order(AMOUNT)).id, "quick_pay")
    await hold_is_unknown(stands=False)(case)
    before = await payment.parts().refunds.find_refund(case.refund_id)
    await approve(case, payment.parts())
    failed = await payment.parts().refunds.find_refund(case.refund_id)
    assert before is not None
    assert failed is not None
    assert failed.state is RefundState.FAILED
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    for source in hold_sources(found):
        late = hold_chain(found, before, source, AccountNames(found))
        with bound(payment.call()):
            answer = await payment.parts().peers.post(late, "USD")
        assert answer == Refused("PENDING_ALREADY_VOIDED")
    assert refund_reference(case.refund_id) not in payment.bank.refunds
    await payment.bring_to_rest()
    await payment.check_everything()
