"""A process that dies at any step of a payment or refund leaves nothing half-done for good.

Each test runs the flow again and again, dying one step later each time, before the step's effect
or after it, until it runs through. After each death the request is repeated and the janitor asks,
as they would; then the money must have moved exactly once.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from payment_kit import REQUEST_LIFE_SECONDS, Crash, Fault, PaymentKit

from common.context import bound
from common.money import Money
from services.payment.domain.payments import Payment, Refund
from services.payment.domain.states import PaymentState, RefundState
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.create_payment import NewPayment, create_payment
from services.payment.flows.refund_payment import advance_refund_by_id, refund_payment

AMOUNT = 1_000
FEE = 6
STEPS_MAX = 40


async def _pay(payment: PaymentKit, product: str, fault: Fault) -> tuple[Payment, bool]:
    """Pay a new order, dying where the fault says; bring it to its end as the platform would."""
    order = await payment.new_order(AMOUNT)
    card = "crd_" + "0" * 26 if product == "quick_pay" else ""
    asked = NewPayment(f"pay-{order.id}", order.id, product, card_id=card)
    died = False
    with bound(payment.call()) as call:
        try:
            await create_payment(payment.parts(fault), asked, call)
        except Crash:
            died = True
        made = await create_payment(payment.parts(), asked, call)  # the merchant repeats
        for _ in range(3):
            made = await advance_payment(payment.parts(), made.id) or made
        if made.state is PaymentState.UNKNOWN:
            # The channel knows nothing of it, which proves nothing until its longest request life
            # has passed.
            payment.kit.clock.ahead += timedelta(seconds=REQUEST_LIFE_SECONDS + 1)
            made = await advance_payment(payment.parts(), made.id) or made
    return made, died


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("product", ["balance", "quick_pay", "qr_pay"])
async def test_dying_at_any_step_of_paying_moves_the_money_exactly_once(
    payment: PaymentKit, product: str, after: bool
) -> None:
    for step in range(STEPS_MAX):
        wallet = await payment.balance(payment.user_id, "user_available")
        merchant = await payment.balance(payment.merchant_id, "merchant_pending")
        charged = len(payment.bank.charged)
        made, died = await _pay(payment, product, Fault(step, after))
        if made.state is PaymentState.FAILED:
            assert made.failure is not None
            assert made.failure.reason == "CHANNEL_UNAVAILABLE"
            assert product != "balance"
            assert len(payment.bank.charged) == charged
            assert await payment.movements(made.id) == {}
            continue
        assert made.state is PaymentState.SUCCEEDED, (step, made)
        assert await payment.movements(made.id) == {
            "payment.receive": [AMOUNT],
            "payment.settle": [AMOUNT - FEE],
            "payment.fee": [FEE],
        }, step
        spent = AMOUNT if product == "balance" else 0
        assert await payment.balance(payment.user_id, "user_available") == wallet - spent
        earned = await payment.balance(payment.merchant_id, "merchant_pending") - merchant
        assert earned == AMOUNT - FEE
        assert len(payment.bank.charged) - charged == (0 if product == "balance" else 1)
        if not died:
            break
    else:
        pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
    assert step >= 5  # it did die on the way
    assert await payment.balance("platform", "payment_transit") == 0
    await payment.check_books()


async def _refund(
    payment: PaymentKit, paid: Payment, refund_id: str, fault: Fault
) -> tuple[Refund | None, bool]:
    died = False
    money = Money("USD", 400)
    with bound(payment.call()) as call:
        try:
            await refund_payment(payment.parts(fault), refund_id, paid.id, money, "", call)
        except Crash:
            died = True
        # Trade repeats under the same id, the janitor asks.
        await refund_payment(payment.parts(), refund_id, paid.id, money, "", call)
        refund = await advance_refund_by_id(payment.parts(), refund_id)
    return refund, died


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("product", ["balance", "quick_pay"])
async def test_dying_at_any_step_of_giving_back_moves_the_money_exactly_once(
    payment: PaymentKit, product: str, after: bool
) -> None:
    for step in range(STEPS_MAX):
        paid, _ = await _pay(payment, product, Fault())
        wallet = await payment.balance(payment.user_id, "user_available")
        merchant = await payment.balance(payment.merchant_id, "merchant_pending")
        refunded = len(payment.bank.refunded)
        refund_id = payment.kit.ids.new("rfd")
        refund, died = await _refund(payment, paid, refund_id, Fault(step, after))
        assert refund is not None
        assert refund.state is RefundState.SUCCEEDED, (step, refund)
        fee = refund.fee_returned_minor
        assert await payment.movements(refund_id) == {
            "refund.hold": [400 - fee],
            "refund.fee_hold": [fee],
            "refund.post": [400 - fee],
            "refund.fee_post": [fee],
            "refund.pay": [400],
        }, step
        back = 400 if product == "balance" else 0
        assert await payment.balance(payment.user_id, "user_available") == wallet + back
        lost = merchant - await payment.balance(payment.merchant_id, "merchant_pending")
        assert lost == 400 - fee
        assert len(payment.bank.refunded) - refunded == (0 if product == "balance" else 1)
        found = await payment.parts().store.find_payment(paid.id)
        assert found is not None
        assert (found.refunded_minor, found.refunding_minor) == (400, 0)
        if not died:
            break
    else:
        pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
    assert step >= 4
    await payment.check_books()


async def test_losing_the_claim_returns_the_money(payment: PaymentKit) -> None:
    order = await payment.new_order(AMOUNT)
    wallet = await payment.balance(payment.user_id, "user_available")
    with bound(payment.call()) as call:
        parts = payment.parts()
        first = await create_payment(parts, NewPayment("one", order.id, "qr_pay"), call)
        second = await create_payment(parts, NewPayment("two", order.id, "balance"), call)
        assert second.state is PaymentState.SUCCEEDED
        late = await advance_payment(parts, first.id)  # the code was scanned after all
    assert late is not None
    assert late.state is PaymentState.RETURNED
    assert await payment.movements(first.id) == {
        "payment.receive": [AMOUNT],
        "payment.return": [AMOUNT],
    }
    assert await payment.balance(payment.user_id, "user_available") == wallet - AMOUNT
    assert await payment.balance("platform", "payment_transit") == 0


async def test_a_refund_without_funds_waits_and_goes_on_when_they_are_there(
    payment: PaymentKit,
) -> None:
    paid, _ = await _pay(payment, "balance", Fault())
    with bound(payment.call()) as call:
        parts = payment.parts()
        refund_id = payment.kit.ids.new("rfd")
        money = Money("USD", 400)
        before = await payment.balance(payment.merchant_id, "merchant_pending")
        taken = await payment.empty_merchant()
        waiting = await refund_payment(parts, refund_id, paid.id, money, "", call)
        assert waiting.state is RefundState.WAITING_FUNDS
        again = await advance_refund_by_id(parts, refund_id)
        assert again is not None
        assert again.state is RefundState.WAITING_FUNDS
        await payment.fill_merchant(taken)
        done = await advance_refund_by_id(parts, refund_id)
    assert done is not None
    assert done.state is RefundState.SUCCEEDED
    after = await payment.balance(payment.merchant_id, "merchant_pending")
    assert before - after == 400 - done.fee_returned_minor
