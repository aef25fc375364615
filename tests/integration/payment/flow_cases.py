"""What the scenarios of `flow_scenarios.py` arrange and do.

Arrangements are done by honest parts; what a scenario does, by parts that may die.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from hosted_services import operator_call
from payment_kit import DUE_SECONDS, UNKNOWN_SECONDS, PaymentKit
from paymesh.trade.v1 import (
    ORDER_STATE_CLOSED,
    ClaimOrderRequest,
    CloseOrderRequest,
    TradeServiceStub,
)
from paymesh.type.v1 import Money as MoneyMessage

from common.context import bound
from common.errors import UnavailableError
from common.money import Money
from services.payment.domain.payments import Payment, Refund, refund_reference
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.carry_out import carry_out
from services.payment.flows.close_payments import close_payments
from services.payment.flows.create_payment import NewPayment, create_payment
from services.payment.flows.desk import decide_resolution, propose_resolution
from services.payment.flows.parts import Parts
from services.payment.flows.refund_payment import advance_refund_by_id, refund_payment
from services.payment.flows.save_payment import report_unknown

AMOUNT, REFUND = 1_000, 400
CARD = "crd_" + "0" * 26


@dataclass
class Case:
    """One run of a scenario."""

    payment: PaymentKit
    order_id: str = ""
    product: str = ""
    payment_id: str = ""
    refund_id: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    async def pay(self, parts: Parts) -> Payment:
        """Pay the order, as its merchant does."""
        card = CARD if self.product == "quick_pay" else ""
        asked = NewPayment(f"pay-{self.order_id}", self.order_id, self.product, card_id=card)
        with bound(self.payment.call()) as call:
            made = await create_payment(parts, asked, call)
        self.payment_id = made.id
        return made

    async def give_back(self, parts: Parts) -> Refund:
        """Give a part back, as trade does."""
        with bound(self.payment.call()) as call:
            money = Money("USD", REFUND)
            return await refund_payment(parts, self.refund_id, self.payment_id, money, "", call)

    async def exception(self) -> dict[str, Any]:
        """Return the newest exception about the payment or refund."""
        return (await self.payment.exceptions(self.refund_id or self.payment_id))[-1]


Step = Callable[[Case, Parts], Awaitable[object]]
Arrange = Callable[[Case], Awaitable[None]]


# --- what is arranged ---------------------------------------------------------------------------


async def nothing(case: Case) -> None:
    """The order alone."""


async def paid(case: Case) -> None:
    """The order is paid, and a refund is about to be asked for."""
    case.refund_id = case.payment.kit.ids.new("rfd")
    await case.pay(case.payment.parts())
    await case.payment.bring_to_rest()


def takes(currency_code: str, amount_minor: int) -> Arrange:
    """The channel takes other money than it is asked for."""

    async def arrange(case: Case) -> None:
        case.payment.bank.takes = MoneyMessage(
            currency_code=currency_code, amount_minor=amount_minor
        )

    return arrange


def conflicted(currency_code: str, amount_minor: int) -> Arrange:
    """It has taken other money, which waits in suspense, and the deadline is over."""

    async def arrange(case: Case) -> None:
        await takes(currency_code, amount_minor)(case)
        made = await case.pay(case.payment.parts())
        assert made.state == "CONFLICTED"
        assert await case.payment.balance("platform", "suspense", currency_code) == amount_minor
        case.payment.kit.clock.ahead += timedelta(seconds=DUE_SECONDS + 1)

    return arrange


async def claim_is_lost(case: Case) -> None:
    """Another payment has won the order; the code was scanned all the same."""
    case.payment.bank.scanned = False
    await case.pay(case.payment.parts())
    await let_other_win(case)
    case.payment.bank.scanned = True


async def let_other_win(case: Case) -> None:
    """Another payment claims the order."""
    stub = TradeServiceStub(case.payment.kit.channel("payment", "trade"))
    with bound(case.payment.call()):
        other = case.payment.kit.ids.new("pay")
        await stub.ClaimOrder(ClaimOrderRequest(order_id=case.order_id, payment_id=other))


async def closed_and_scanned(case: Case) -> None:
    """The order is closed with its payment; the payer had scanned the code, and it went through."""
    case.payment.bank.scanned = False
    await case.pay(case.payment.parts())
    stub = TradeServiceStub(case.payment.kit.channel("edge", "trade"))
    with bound(case.payment.call()):
        request = CloseOrderRequest(request_id="close", order_id=case.order_id)
        assert (await stub.CloseOrder(request)).order.state == ORDER_STATE_CLOSED
    case.payment.bank.scanned = True


async def waits_for_the_payer(case: Case) -> None:
    """A code is shown and not scanned."""
    case.payment.bank.scanned = False
    await case.pay(case.payment.parts())


async def return_is_refused(case: Case) -> None:
    """The claim is lost, and the channel refuses to give the money back."""
    await claim_is_lost(case)
    case.payment.bank.refusals = 1
    await go_on(case, case.payment.parts())
    assert (await case.exception())["kind"] == "RETURN_REFUSED"


async def conflict_is_kept(case: Case) -> None:
    """Other money came, and the channel refuses to give it back."""
    await conflicted("EUR", 900)(case)
    case.payment.bank.refusals = 1
    await carry_out_newest(case, case.payment.parts())
    assert (await case.exception())["kind"] == "RETURN_REFUSED"


async def unclaim_is_proposed(case: Case) -> None:
    """A maker wants the money kept for the payer."""
    await propose(case, "MOVE_TO_UNCLAIMED")


async def propose(case: Case, action: str) -> None:
    """Let the maker propose an action about the newest exception."""
    found = await case.exception()
    call = operator_call("desk_maker")
    with bound(call):
        await propose_resolution(
            case.payment.parts(), found["id"], action, "because", found["version"], call
        )


async def merchant_is_poor(case: Case) -> None:
    """The merchant's balance does not cover the refund; it fills up after the first try."""
    await paid(case)
    taken = await case.payment.empty_merchant()
    case.notes["taken"] = taken
    await case.give_back(case.payment.parts())
    await case.payment.fill_merchant(taken)


async def refund_is_unknown(case: Case) -> None:
    """The channel is silent about a refund, and a maker has proof that nothing moved."""
    await paid(case)
    case.payment.bank.is_silent = True
    await case.give_back(case.payment.parts())
    await case.payment.run_due(UNKNOWN_SECONDS + 60)
    await propose(case, "FAIL")


async def wait_for_the_deadline(case: Case) -> None:
    """Nobody decides."""
    case.payment.kit.clock.ahead += timedelta(seconds=DUE_SECONDS + 1)


def hold_is_unknown(*, stands: bool) -> Arrange:
    """The ledger's answer about a hold is lost, and a maker has proof that nothing moved."""

    async def arrange(case: Case) -> None:
        await paid(case)
        parts = case.payment.parts()
        await case.give_back(replace(parts, peers=DeafPeers(parts.peers, stands)))
        refund = await parts.refunds.find_refund(case.refund_id)
        assert refund is not None
        assert refund.state == "PENDING"
        case.payment.kit.clock.ahead += timedelta(seconds=UNKNOWN_SECONDS + 60)
        await report_unknown(parts, refund)
        await propose(case, "FAIL")

    return arrange


class DeafPeers:
    """Peers who do not hear what the ledger answers."""

    def __init__(self, inner: Any, executes: bool) -> None:
        self._inner = inner
        self._executes = executes

    async def post(self, *chain: Any) -> Any:
        """Book, perhaps; the answer is lost."""
        if self._executes:
            await self._inner.post(*chain)
        raise UnavailableError(target="account")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def refund_is_refused(case: Case) -> None:
    """The channel refuses to give a part back."""
    await paid(case)
    case.payment.bank.refusals = 1
    assert (await case.give_back(case.payment.parts())).state == "FAILED"


async def refund_was_let_fail(case: Case) -> None:
    """Nobody knew, and both at the desk were sure that nothing had moved."""
    await refund_is_unknown(case)
    await approve(case, case.payment.parts())


async def channel_gives_back(case: Case) -> None:
    """The channel gives the money back after all, and payment hears of it."""
    bank = case.payment.bank
    bank.is_silent = False
    reference = refund_reference(case.refund_id)
    bank.refused.discard(reference)
    bank.refunds[reference] = bank.refunded[reference] = MoneyMessage(
        currency_code="USD", amount_minor=REFUND
    )
    await case.payment.hear_of_refund(case.refund_id)


# --- what is done -------------------------------------------------------------------------------


async def pay(case: Case, parts: Parts) -> None:
    """Pay the order."""
    await case.pay(parts)


async def pay_and_lose(case: Case, parts: Parts) -> None:
    """Pay the order, which another payment wins just before this one claims it."""
    peers: Any = parts.peers
    await case.pay(replace(parts, peers=LosingPeers(peers, case)))


async def go_on(case: Case, parts: Parts) -> None:
    """Ask what became of the payment, as its job does."""
    with bound(case.payment.call()):
        await advance_payment(parts, case.payment_id)


async def give_back(case: Case, parts: Parts) -> None:
    """Give a part back."""
    await case.give_back(parts)


async def go_on_giving_back(case: Case, parts: Parts) -> None:
    """Ask what became of the refund, as its job does."""
    with bound(case.payment.call()):
        await advance_refund_by_id(parts, case.refund_id)


async def close(case: Case, parts: Parts) -> None:
    """Close the payments of the order."""
    with bound(case.payment.call()):
        await close_payments(parts, case.order_id)


async def carry_out_newest(case: Case, parts: Parts) -> None:
    """Carry out what is due about the newest exception, as its job does."""
    found = await case.exception()
    with bound(case.payment.call()):
        await carry_out(parts, found["id"])


async def approve(case: Case, parts: Parts) -> None:
    """Let the checker approve."""
    found = await case.exception()
    call = operator_call("desk_checker")
    call = replace(call, principal=replace(call.principal, actor_id="grace"))
    with bound(call):
        await decide_resolution(
            parts, found["id"], "so be it", found["version"], call, approved=True
        )


async def take_your_time(case: Case, parts: Parts) -> None:
    """Ask again, while the channel works on it; then it is done."""
    await case.give_back(parts)
    await case.payment.run_due(60)
    case.payment.bank.takes_time = False


class LosingPeers:
    """Peers with which a claim always comes second."""

    def __init__(self, inner: Any, case: Case) -> None:
        self._inner = inner
        self._case = case

    async def claim_order(self, payment: Payment) -> bool:
        """Let the other one win first."""
        await let_other_win(self._case)
        won: bool = await self._inner.claim_order(payment)
        return won

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def then(first: Arrange, second: Arrange, case: Case) -> None:
    """Arrange one thing after the other."""
    await first(case)
    await second(case)


def both(first: Arrange, second: Arrange) -> Arrange:
    """Return an arrangement of two."""
    return partial(then, first, second)


def bank(**behaviour: Any) -> Arrange:
    """Let the channel behave so from now on."""

    async def arrange(case: Case) -> None:
        for name, value in behaviour.items():
            setattr(case.payment.bank, name, value)

    return arrange
