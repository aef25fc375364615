"""News that cross: what was learned of money counts, whoever wrote something else meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from payment_kit import PaymentKit

from common.context import bound
from services.payment.domain.payments import Failure, Payment
from services.payment.domain.states import PaymentState
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.collect_payment import fail
from services.payment.flows.create_payment import NewPayment, create_payment

AMOUNT = 1_000


async def _pay(payment: PaymentKit, order_id: str, product: str) -> Payment:
    with bound(payment.call()) as call:
        asked = NewPayment(f"{product}-{order_id}", order_id, product)
        return await create_payment(payment.parts(), asked, call)


class _FailingFirst:
    """A writer before whose first success somebody else fails the payment."""

    def __init__(self, payment: PaymentKit, inner: Any) -> None:
        self._payment = payment
        self._inner = inner
        self.interfered = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def save_change(self, change: Any) -> bool:
        """Save, after somebody else where it is the first success."""
        if change.after.state is PaymentState.SUCCEEDED and not self.interfered:
            self.interfered = True
            failed = await fail(self._payment.parts(), change.before, Failure("DECLINED"))
            assert failed.state is PaymentState.FAILED
        return bool(await self._inner.save_change(change))


async def test_a_success_is_not_lost_to_a_failure_written_meanwhile(payment: PaymentKit) -> None:
    payment.bank.behave()
    payment.bank.scanned = False
    order = await payment.new_order(AMOUNT)
    made = await _pay(payment, order.id, "qr_pay")
    assert made.state is PaymentState.REQUIRES_ACTION
    payment.bank.scanned = True
    parts = payment.parts()
    writer: Any = _FailingFirst(payment, parts.writer)
    with bound(payment.call()):
        ended = await advance_payment(replace(parts, writer=writer), made.id)
    assert writer.interfered
    assert ended is not None
    assert ended.state is PaymentState.SUCCEEDED
    await payment.bring_to_rest()
    assert (await payment.movements(made.id))["payment.receive"] == [AMOUNT]
    await payment.check_everything()


async def test_what_could_only_be_paid_twice_is_closed(payment: PaymentKit) -> None:
    payment.bank.behave()
    payment.bank.scanned = False
    order = await payment.new_order(AMOUNT)
    first = await _pay(payment, order.id, "qr_pay")
    second = await _pay(payment, order.id, "balance")
    assert (first.state, second.state) == (PaymentState.REQUIRES_ACTION, PaymentState.SUCCEEDED)
    with bound(payment.call()):
        closed = await advance_payment(payment.parts(), first.id)
    assert closed is not None
    assert closed.state is PaymentState.CLOSED
    await payment.bring_to_rest()
    await payment.check_everything()
