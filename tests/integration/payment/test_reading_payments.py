"""Reading an open payment gets it moving; reading others costs nothing."""

from __future__ import annotations

from datetime import timedelta

from desk_kit import new_case
from flow_cases import waits_for_the_payer
from hosted_services import until
from payment_kit import PaymentKit
from paymesh.payment.v1 import GetPaymentRequest, ListPaymentsRequest, PaymentServiceStub

from common.context import bound

FAR = timedelta(hours=1)


async def _due_in(payment: PaymentKit, payment_id: str) -> timedelta:
    """Return how long the payment's job waits still, by the database's clock."""
    (row,) = await payment.kit.rows(
        "payment",
        "SELECT run_at - clock_timestamp() AS due_in FROM jobs WHERE key = $1 AND state = 'OPEN'",
        payment_id,
    )
    due_in: timedelta = row["due_in"]
    return due_in


async def _put_off(payment: PaymentKit, payment_id: str) -> None:
    async with payment.kit.pools["payment"].acquire() as connection:
        await connection.execute(
            "UPDATE jobs SET run_at = clock_timestamp() + $2, is_hastened = false"
            " WHERE key = $1 AND state = 'OPEN'",
            payment_id,
            FAR,
        )


async def test_reading_an_old_open_payment_hastens_its_job(payment: PaymentKit) -> None:
    case = await new_case(payment)
    await waits_for_the_payer(case)
    stub = PaymentServiceStub(payment.kit.channel("edge", "payment"))

    async def is_due() -> bool:
        return await _due_in(payment, case.payment_id) <= timedelta()

    with bound(payment.call()):
        await _put_off(payment, case.payment_id)
        # Its first call may still be under way.
        await stub.GetPayment(GetPaymentRequest(payment_id=case.payment_id))
        payment.kit.clock.ahead += timedelta(seconds=10)
        assert not await is_due()
        await stub.GetPayment(GetPaymentRequest(payment_id=case.payment_id))
        await until(is_due)
        await _put_off(payment, case.payment_id)
        payment.kit.clock.ahead += timedelta(seconds=10)
        await stub.ListPayments(ListPaymentsRequest(order_id=case.order_id))
        await until(is_due)
    payment.bank.scanned = True
    await payment.bring_to_rest()
