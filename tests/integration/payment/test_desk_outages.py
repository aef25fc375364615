"""The desk while a peer is away: nothing counts as done that was not done."""

from __future__ import annotations

from datetime import timedelta

from desk_kit import Desk, new_case, refused_return
from flow_cases import AMOUNT, Case, carry_out_newest, conflicted
from payment_kit import DUE_SECONDS, UNKNOWN_SECONDS, PaymentKit
from paymesh.payment.v1 import EXCEPTION_STATE_RESOLVED

from services.payment.domain.payments import refund_reference


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


async def _gives_back_late(case: Case, attempt: int) -> None:
    """The channel gives back what it had refused, and nobody has heard of it yet."""
    bank = case.payment.bank
    bank.refusals = 0
    reference = refund_reference(case.payment_id, attempt)
    bank.refused.discard(reference)
    bank.refunded[reference] = bank.refunds[reference]


async def test_what_came_back_after_a_refusal_is_not_given_back_again(
    payment: PaymentKit, desk: Desk
) -> None:
    case, one = await refused_return(payment, desk)
    await _gives_back_late(case, 1)
    payment.kit.clock.ahead += timedelta(seconds=DUE_SECONDS + 1)
    await carry_out_newest(case, payment.parts())
    await payment.bring_to_rest()
    assert (await desk.get(one.id)).state == EXCEPTION_STATE_RESOLVED
    assert (await payment.movements(case.payment_id))["payment.return"] == [AMOUNT]
    await payment.check_everything()


async def test_what_came_back_after_a_refusal_is_not_kept_unclaimed(
    payment: PaymentKit, desk: Desk
) -> None:
    case, one = await refused_return(payment, desk)
    one = await desk.propose(one, "MOVE_TO_UNCLAIMED")
    await _gives_back_late(case, 1)
    one = await desk.decide(one)
    assert one.state == EXCEPTION_STATE_RESOLVED
    await payment.bring_to_rest()
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "RETURNED"
    await payment.check_everything()


async def test_what_came_back_of_an_earlier_attempt_ends_the_return(
    payment: PaymentKit, desk: Desk
) -> None:
    """The second attempt is refused too; then the first one's money is back after all."""
    case, one = await refused_return(payment, desk)
    payment.bank.refusals = 1
    await desk.decide(await desk.propose(one, "RETRY"))
    found = await case.exception()
    assert (found["kind"], found["state"]) == ("RETURN_REFUSED", "OPEN")
    await _gives_back_late(case, 1)
    await payment.hear_of_refund(case.payment_id)
    await payment.run_due()
    after = await payment.parts().store.find_payment(case.payment_id)
    assert after is not None
    assert after.state == "RETURNED"
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_refused_return_is_on_the_list_once(payment: PaymentKit, desk: Desk) -> None:
    """What the channel has refused is known, however long it takes until somebody decides."""
    case, one = await refused_return(payment, desk)
    one = await desk.propose(one, "MOVE_TO_UNCLAIMED")
    later = timedelta(seconds=2 * UNKNOWN_SECONDS)
    await payment.kit.rows(
        "payment",
        "UPDATE exceptions SET due_at = $2 WHERE id = $1 RETURNING id",
        one.id,
        payment.kit.clock.now() + later,
    )
    await payment.run_due(UNKNOWN_SECONDS + 60)
    kinds = [(e["kind"], e["state"]) for e in await payment.exceptions(case.payment_id)]
    assert kinds == [("RETURN_REFUSED", "PROPOSED")]
    await desk.decide(one)
    await payment.bring_to_rest()
    await payment.check_everything()
