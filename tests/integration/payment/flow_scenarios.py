"""Every row of docs/money-flows.md as something that is done, repeated and checked.

A scenario is arranged, then done by parts that may die; then its caller repeats it, and the janitor
and the deadlines of the exception desk go on. Wherever it died, what is booked must be the same.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flow_cases import (
    AMOUNT,
    REFUND,
    Arrange,
    Case,
    Step,
    approve,
    bank,
    both,
    carry_out_newest,
    channel_gives_back,
    claim_is_lost,
    close,
    closed_and_scanned,
    conflict_is_kept,
    conflicted,
    give_back,
    go_on,
    go_on_giving_back,
    hold_is_unknown,
    merchant_is_poor,
    nothing,
    paid,
    pay,
    pay_and_lose,
    refund_is_refused,
    refund_is_unknown,
    refund_was_let_fail,
    return_is_refused,
    take_your_time,
    takes,
    unclaim_is_proposed,
    wait_for_the_deadline,
    waits_for_the_payer,
)
from payment_kit import PaymentKit
from return_cases import (
    channel_returns,
    is_back_by_another_attempt,
    is_kept,
    nothing_is_unclaimed,
    other_money_is_back_by_another_attempt,
    other_money_is_kept,
)

from common.errors import PaymeshError
from services.channel.errors import RefundExceedsChargeError

FEE, FEE_BACK = 6, 2
Lines = dict[str, list[int]]

RECEIVED: Lines = {"payment.receive": [AMOUNT]}
PURCHASE: Lines = RECEIVED | {"payment.settle": [AMOUNT - FEE], "payment.fee": [FEE]}
NEVER_SENT: tuple[str, Lines] = ("FAILED", {})
RECHARGE: Lines = RECEIVED | {"payment.recharge": [AMOUNT]}
HELD: Lines = {"refund.hold": [REFUND - FEE_BACK], "refund.fee_hold": [FEE_BACK]}
GIVEN_BACK: Lines = HELD | {
    "refund.post": [REFUND - FEE_BACK],
    "refund.fee_post": [FEE_BACK],
    "refund.pay": [REFUND],
}
RELEASED: Lines = HELD | {"refund.void": [REFUND - FEE_BACK], "refund.fee_void": [FEE_BACK]}
LATE: Lines = {"refund.late": [REFUND]}
RETURNED: Lines = RECEIVED | {"payment.return": [AMOUNT]}
OTHER: Lines = {"payment.conflict": [900]}
OVERTAKEN: tuple[tuple[str, Lines], ...] = (("SUCCEEDED", GIVEN_BACK), ("FAILED", RELEASED))
"""The janitor went on before the decision to fail stood: it is finished, or held and released."""


@dataclass(frozen=True)
class Scenario:
    """One row of the page, or several that one flow walks through."""

    name: str
    product: str
    arrange: Arrange
    act: Step
    state: str
    """State that the payment, or the refund where there is one, ends in."""
    booked: Lines
    """What is booked for it in the end."""
    steps_min: int = 3
    """At least so many places to die at."""
    order_type: str = "purchase"
    or_else: tuple[tuple[str, Lines], ...] = ()
    """Other ends, as good: what the death came before was never done."""
    repeat: Step | None = None
    """What the caller does after a death; the same again where nothing else is said."""

    async def begin(self, payment: PaymentKit) -> Case:
        """Arrange a new case."""
        payment.bank.behave()
        order = await payment.new_order(AMOUNT, type=self.order_type)
        case = Case(payment, order.id, self.product)
        await self.arrange(case)
        return case

    async def finish(self, case: Case) -> None:
        """Let the caller repeat, and everything come to rest."""
        with suppress(PaymeshError):
            await (self.repeat or self.act)(case, case.payment.parts())
        await case.payment.bring_to_rest()

    async def check(self, case: Case) -> None:
        """Compare with what the page says."""
        parts = case.payment.parts()
        found: Any = await parts.store.find_payment(case.payment_id)
        if case.refund_id:
            paid, found = found, await parts.refunds.find_refund(case.refund_id)
            given = REFUND if found.state == "SUCCEEDED" else 0
            assert (paid.refunded_minor, paid.refunding_minor) == (given, 0)
        movements = await case.payment.movements(found.id)
        # A void of what never came is booked with nothing.
        moved = {name: [minor for minor in all_ if minor] for name, all_ in movements.items()}
        booked = {name: amounts for name, amounts in moved.items() if amounts}
        assert (found.state, booked) in ((self.state, self.booked), *self.or_else), found
        await case.payment.check_everything()


def unclaimed(came: int) -> Lines:
    """The movement that keeps it for the payer."""
    return {"payment.unclaim": [came]}


def given_back(came: int) -> Lines:
    """It was kept, and the channel gave it back after all."""
    return unclaimed(came) | {"payment.unclaimed_return": [came]}


def lost(came: int) -> Lines:
    """The channel gave it back once too often."""
    return {"payment.late_return": [came]}


SCENARIOS = {
    one.name: one
    for one in (
        Scenario(
            "pay by card",
            "quick_pay",
            nothing,
            pay,
            "SUCCEEDED",
            PURCHASE,
            5,
            or_else=(NEVER_SENT,),
        ),
        Scenario(
            "pay by code", "qr_pay", nothing, pay, "SUCCEEDED", PURCHASE, 5, or_else=(NEVER_SENT,)
        ),
        Scenario(
            "scan a code",
            "qr_pay",
            both(waits_for_the_payer, bank(scanned=True)),
            go_on,
            "SUCCEEDED",
            PURCHASE,
            5,
        ),
        Scenario("pay from the balance", "balance", nothing, pay, "SUCCEEDED", PURCHASE, 5),
        Scenario(
            "recharge",
            "quick_pay",
            nothing,
            pay,
            "SUCCEEDED",
            RECHARGE,
            5,
            order_type="recharge",
            or_else=(NEVER_SENT,),
        ),
        Scenario(
            "pay an order twice",
            "qr_pay",
            claim_is_lost,
            go_on,
            "RETURNED",
            RECEIVED | {"payment.return": [AMOUNT]},
            5,
        ),
        Scenario(
            "lose the claim with the balance",
            "balance",
            nothing,
            pay_and_lose,
            "RETURNED",
            RECEIVED | {"payment.return": [AMOUNT]},
            5,
            or_else=(("SUCCEEDED", PURCHASE),),
            repeat=pay,
        ),
        Scenario(
            "succeed on a closed order",
            "qr_pay",
            closed_and_scanned,
            go_on,
            "RETURNED",
            RECEIVED | {"payment.return": [AMOUNT]},
            5,
        ),
        Scenario("close an unpaid order", "qr_pay", waits_for_the_payer, close, "CLOSED", {}, 2),
        Scenario(
            "close a paid order",
            "qr_pay",
            both(waits_for_the_payer, bank(scanned=True)),
            close,
            "SUCCEEDED",
            PURCHASE,
            5,
        ),
        Scenario(
            "take another amount",
            "quick_pay",
            takes("USD", AMOUNT - 10),
            pay,
            "RETURNED",
            {"payment.conflict": [AMOUNT - 10], "payment.conflict_return": [AMOUNT - 10]},
            5,
            or_else=(NEVER_SENT,),
        ),
        Scenario(
            "take another currency",
            "quick_pay",
            takes("EUR", 900),
            pay,
            "RETURNED",
            {"payment.conflict": [900], "payment.conflict_return": [900]},
            5,
            or_else=(NEVER_SENT,),
        ),
        Scenario(
            "return another amount at the deadline",
            "quick_pay",
            conflicted("USD", AMOUNT + 7),
            carry_out_newest,
            "RETURNED",
            {"payment.conflict": [AMOUNT + 7], "payment.conflict_return": [AMOUNT + 7]},
            5,
        ),
        Scenario(
            "ask for the money back again",
            "qr_pay",
            both(return_is_refused, wait_for_the_deadline),
            carry_out_newest,
            "RETURNED",
            RECEIVED | {"payment.return": [AMOUNT]},
            5,
        ),
        Scenario(
            "keep a lost payment unclaimed",
            "qr_pay",
            both(return_is_refused, unclaim_is_proposed),
            approve,
            "UNCLAIMED",
            RECEIVED | unclaimed(AMOUNT),
            4,
        ),
        Scenario(
            "keep other money unclaimed",
            "quick_pay",
            both(conflict_is_kept, unclaim_is_proposed),
            approve,
            "UNCLAIMED",
            {"payment.conflict": [900]} | unclaimed(900),
            4,
        ),
        Scenario(
            "be refused for ever",
            "qr_pay",
            both(claim_is_lost, bank(refusals=99)),
            go_on,
            "UNCLAIMED",
            RECEIVED | unclaimed(AMOUNT),
            5,
        ),
        Scenario(
            "be given back what was kept",
            "qr_pay",
            both(is_kept, channel_returns(1)),
            go_on,
            "RETURNED",
            RECEIVED | given_back(AMOUNT),
            4,
        ),
        Scenario(
            "be given back what was kept of other money",
            "quick_pay",
            both(other_money_is_kept, channel_returns(1)),
            go_on,
            "RETURNED",
            OTHER | given_back(900),
            4,
        ),
        Scenario(
            "be given back what is not there any more",
            "qr_pay",
            both(both(is_kept, nothing_is_unclaimed), channel_returns(1)),
            go_on,
            "UNCLAIMED",
            RECEIVED | unclaimed(AMOUNT) | lost(AMOUNT),
            5,
        ),
        Scenario(
            "be given back twice",
            "qr_pay",
            both(is_back_by_another_attempt, channel_returns(1)),
            go_on,
            "RETURNED",
            RETURNED | lost(AMOUNT),
            4,
        ),
        Scenario(
            "be given back twice what did not fit",
            "quick_pay",
            both(other_money_is_back_by_another_attempt, channel_returns(1)),
            go_on,
            "RETURNED",
            OTHER | {"payment.conflict_return": [900]} | lost(900),
            4,
        ),
        Scenario("give back by channel", "quick_pay", paid, give_back, "SUCCEEDED", GIVEN_BACK, 5),
        Scenario(
            "give back after a while",
            "quick_pay",
            both(paid, bank(takes_time=True)),
            give_back,
            "SUCCEEDED",
            GIVEN_BACK,
            5,
            repeat=take_your_time,
        ),
        Scenario(
            "give back to the balance", "balance", paid, give_back, "SUCCEEDED", GIVEN_BACK, 4
        ),
        Scenario(
            "give a recharge back",
            "quick_pay",
            paid,
            give_back,
            "SUCCEEDED",
            {"refund.hold": [REFUND], "refund.post": [REFUND], "refund.pay": [REFUND]},
            5,
            order_type="recharge",
        ),
        Scenario(
            "be refused a refund",
            "quick_pay",
            both(paid, bank(refusals=1)),
            give_back,
            "FAILED",
            RELEASED,
            5,
        ),
        Scenario(
            "be refused a refund by the channel service",
            "quick_pay",
            both(paid, bank(rejects=RefundExceedsChargeError(refundable_minor=0))),
            give_back,
            "FAILED",
            RELEASED,
            5,
        ),
        Scenario(
            "refund when there are funds",
            "balance",
            merchant_is_poor,
            go_on_giving_back,
            "SUCCEEDED",
            GIVEN_BACK,
            4,
        ),
        Scenario(
            "let a refund fail whose hold stands",
            "quick_pay",
            hold_is_unknown(stands=True),
            approve,
            "FAILED",
            RELEASED,
            4,
            or_else=OVERTAKEN,
        ),
        Scenario(
            "let a refund fail whose hold never came",
            "quick_pay",
            hold_is_unknown(stands=False),
            approve,
            "FAILED",
            {},
            4,
            or_else=OVERTAKEN,
        ),
        Scenario(
            "let a refund fail", "quick_pay", refund_is_unknown, approve, "FAILED", RELEASED, 4
        ),
        Scenario(
            "be given back after a refusal",
            "quick_pay",
            both(refund_is_refused, channel_gives_back),
            go_on_giving_back,
            "FAILED",
            RELEASED | LATE,
            4,
        ),
        Scenario(
            "be given back after it was let fail",
            "quick_pay",
            both(refund_was_let_fail, channel_gives_back),
            go_on_giving_back,
            "FAILED",
            RELEASED | LATE,
            4,
        ),
    )
}
