"""The desk while a peer is away: nothing counts as done that was not done."""

from __future__ import annotations

from desk_kit import Desk, new_case
from flow_cases import conflicted
from payment_kit import DUE_SECONDS, PaymentKit


async def test_a_refused_booking_is_not_done_because_the_channel_is_silent(
    payment: PaymentKit, desk: Desk
) -> None:
    """Its deadline comes while nobody says whether the money is back: it stays on the list."""
    case = await new_case(payment, "quick_pay")
    await conflicted("KRW", 700)(case)
    await _freeze(payment, "DEBIT_FROZEN")
    await payment.run_due()
    assert [(e["kind"], e["state"]) for e in await payment.exceptions(case.payment_id)] == [
        ("CURRENCY_MISMATCH", "APPROVED"),
        ("LEDGER_REFUSED", "OPEN"),
    ]
    payment.bank.is_silent = True
    await payment.run_due(DUE_SECONDS + 1)
    found = await case.exception()
    assert (found["kind"], found["state"]) == ("LEDGER_REFUSED", "OPEN")
    await _freeze(payment, "NORMAL")
    payment.bank.is_silent = False
    await payment.bring_to_rest()
    assert await payment.movements(case.payment_id) == {
        "payment.conflict": [700],
        "payment.conflict_return": [700],
    }


async def _freeze(payment: PaymentKit, status: str) -> None:
    async with payment.kit.pools["account"].acquire() as connection:
        await connection.execute(
            "UPDATE accounts SET status = $1 WHERE id = $2",
            status,
            payment.account("platform", "suspense", "KRW"),
        )
