"""Returns that have ended, and channels that give the money back all the same."""

from __future__ import annotations

from flow_cases import (
    Arrange,
    Case,
    approve,
    carry_out_newest,
    conflict_is_kept,
    return_is_refused,
    unclaim_is_proposed,
    wait_for_the_deadline,
)

from services.payment.domain.payments import refund_reference


def channel_returns(attempt: int) -> Arrange:
    """The channel carries out a return that it had refused, and payment hears of it."""

    async def arrange(case: Case) -> None:
        bank, reference = case.payment.bank, refund_reference(case.payment_id, attempt)
        bank.refused.discard(reference)
        bank.refunded[reference] = bank.refunds[reference]
        await case.payment.hear_of_refund(case.payment_id)

    return arrange


async def is_kept(case: Case) -> None:
    """What the channel refuses to give back is kept for the payer."""
    await return_is_refused(case)
    await keep(case)


async def other_money_is_kept(case: Case) -> None:
    """The same of other money than was asked for."""
    await conflict_is_kept(case)
    await keep(case)


async def keep(case: Case) -> None:
    """Both at the desk want the money kept for the payer."""
    await unclaim_is_proposed(case)
    await approve(case, case.payment.parts())
    found = await case.payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "UNCLAIMED"


async def is_back_by_another_attempt(case: Case) -> None:
    """The second attempt has brought the money back."""
    await return_is_refused(case)
    await wait_for_the_deadline(case)
    await carry_out_newest(case, case.payment.parts())
    found = await case.payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert (found.state, found.return_attempt) == ("RETURNED", 2)


async def other_money_is_back_by_another_attempt(case: Case) -> None:
    """The same of other money than was asked for."""
    await conflict_is_kept(case)
    await wait_for_the_deadline(case)
    await carry_out_newest(case, case.payment.parts())


async def nothing_is_unclaimed(case: Case) -> None:
    """Somebody has taken what was kept out of its account by hand."""
    kit = case.payment
    case.notes["unclaimed"] = kept = await kit.balance("platform", "unclaimed")
    await kit.move(
        kit.account("platform", "unclaimed"), kit.account("bank", "channel_receivable"), kept
    )
