"""Customers and merchants: they buy, pay twice, close, change their minds and ask their money back.

They speak with the platform as the edge does. What gets no answer they ask again under the same
request id, for a while; what is refused they leave.
"""

from __future__ import annotations

from asyncio import gather, sleep
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paymesh.account import account_id_for
from paymesh.account.v1 import (
    TRANSFER_KIND_SINGLE,
    TRANSFER_STATUS_BOOKED,
    AccountServiceStub,
    AccountSpec,
    CreateTransfersRequest,
    OpenAccountsRequest,
    TransferSpec,
)
from paymesh.payment.v1 import CreatePaymentRequest, GetPaymentRequest, PaymentServiceStub
from paymesh.trade.v1 import (
    ORDER_STATE_CLOSED,
    ORDER_STATE_COMPLETED,
    CloseOrderRequest,
    CreateOrderRequest,
    CreateRefundRequest,
    GetOrderRequest,
    Order,
    TradeServiceStub,
)
from paymesh.type.v1 import Money

from common.context import ActorType, CallContext, Mode, Principal, bound
from common.errors import Outcome, PaymeshError, Retry
from tests.simulation.neighbours import BLOCKED_MINOR

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

CURRENCIES: Final = ("USD", "CNY")
_FUNDS_MINOR: Final = 40_000
_PATIENCE: Final = 6
"""How often a customer asks again."""
_PRODUCTS: Final = {
    "purchase": ("balance", "qr_pay", "quick_pay"),
    "recharge": ("qr_pay", "quick_pay"),
}


class Shop:
    """Some merchants with their users."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self._merchants = [world.ids.new("mer") for _ in range(2)]
        self._users = {merchant: world.ids.new("usr") for merchant in self._merchants}
        self._card = world.ids.new("crd")
        self._numbers = 0

    # Before the storm.

    async def open(self) -> None:
        """Open the accounts that merchants and users have, and fill the wallets."""
        stub = AccountServiceStub(self._world.edge("account", caller="payment"))
        for merchant, user in self._users.items():
            owners = [
                (user, "user_available", merchant),
                (merchant, "merchant_pending", merchant),
                (merchant, "merchant_settled", merchant),
                ("opening", "channel_receivable", ""),
            ]
            specs = [
                AccountSpec(
                    id=_account(owner, kind, currency),
                    owner_id=owner,
                    kind=kind,
                    currency_code=currency,
                    merchant_id=of_merchant,
                )
                for owner, kind, of_merchant in owners
                for currency in CURRENCIES
            ]
            fills = [
                TransferSpec(
                    id=self._world.ids.new("tfr"),
                    kind=TRANSFER_KIND_SINGLE,
                    debit_account_id=_account("opening", "channel_receivable", currency),
                    credit_account_id=_account(user, "user_available", currency),
                    currency_code=currency,
                    amount_minor=_FUNDS_MINOR,
                    movement="test.opening",
                    reference_id="opening",
                )
                for currency in CURRENCIES
            ]
            with bound(_as(merchant)):
                await stub.OpenAccounts(OpenAccountsRequest(accounts=specs))
                answer = await stub.CreateTransfers(CreateTransfersRequest(transfers=fills))
            assert all(one.status == TRANSFER_STATUS_BOOKED for one in answer.results)

    # The storm.

    async def trade(self) -> None:
        """Let some customers do what they want, all at a time."""
        await gather(*(self._customer() for _ in range(self._chance.randint(2, 6))))

    async def _customer(self) -> None:
        chance = self._chance
        await sleep(chance.uniform(0.0, 60.0))
        merchant = chance.choice(self._merchants)
        with bound(_as(merchant)):
            order = await self._order(merchant, chance.choice(("purchase", "purchase", "recharge")))
            if order is None:
                return
            paying = [self._pay(order) for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3)))]
            if chance.random() < 0.25:
                paying.append(self._close(order))
            await gather(*paying)
            ended = await self._wait(order)
            if ended is not None and ended.state == ORDER_STATE_COMPLETED:
                await self._regret(ended)

    async def _order(self, merchant: str, kind: str) -> Order | None:
        chance = self._chance
        number = self._number("order")
        amount = chance.choice((1, 99, chance.randint(100, 30_000), chance.randint(100, 30_000)))
        if chance.random() < 0.03:
            amount = BLOCKED_MINOR
        request = CreateOrderRequest(
            request_id=number,
            merchant_order_no=number,
            type=kind,
            amount=Money(currency_code=chance.choice(CURRENCIES), amount_minor=amount),
            user_id=self._users[merchant],
            expires_in_seconds=chance.choice((60, 300, 900, 3600)),
        )
        stub = TradeServiceStub(self._world.edge("trade"))
        answers = await self._insist(lambda: stub.CreateOrder(request), 0.2)
        return answers.order if answers is not None else None

    async def _pay(self, order: Order) -> None:
        chance = self._chance
        await sleep(chance.choice((0.0, 0.0, 0.05, chance.uniform(0.0, 90.0))))
        product = chance.choice(_PRODUCTS[order.type])
        request = CreatePaymentRequest(
            request_id=self._number("pay"),
            order_id=order.id,
            product=product,
            card_id=self._card if product == "quick_pay" else "",
        )
        stub = PaymentServiceStub(self._world.edge("payment"))
        answer = await self._insist(lambda: stub.CreatePayment(request), 0.2)
        if answer is not None and chance.random() < 0.5:
            # Whoever looks at an open payment makes the platform ask about it.
            await sleep(chance.uniform(1.0, 60.0))
            reading = GetPaymentRequest(payment_id=answer.payment.id)
            await self._insist(lambda: stub.GetPayment(reading), 0.2)

    async def _close(self, order: Order) -> None:
        await sleep(self._chance.choice((0.0, 0.1, self._chance.uniform(0.0, 60.0))))
        request = CloseOrderRequest(request_id=self._number("close"), order_id=order.id)
        stub = TradeServiceStub(self._world.edge("trade"))
        await self._insist(lambda: stub.CloseOrder(request), 0.2)

    async def _wait(self, order: Order) -> Order | None:
        """Look at an order until it has ended, for a while."""
        stub = TradeServiceStub(self._world.edge("trade"))
        for pause in (0.5, 5.0, 20.0, 60.0, 120.0, 300.0, 600.0):
            await sleep(pause * self._chance.uniform(0.1, 1.0))
            try:
                now = (await stub.GetOrder(GetOrderRequest(order_id=order.id))).order
            except PaymeshError:
                continue
            if now.state in (ORDER_STATE_COMPLETED, ORDER_STATE_CLOSED):
                return now
        return None

    async def _regret(self, order: Order) -> None:
        """Ask for nothing, all, parts or more than all, one after the other or at once."""
        total = order.amount.amount_minor
        part = self._chance.randint(1, total)
        wishes = self._chance.choice(
            ([], [total], [part], [part, total - part], [part, part, part], [total, total])
        )
        asked = [self._refund(order, amount) for amount in wishes if amount > 0]
        if self._chance.random() < 0.5:
            await gather(*asked)
        else:
            for one in asked:
                await one

    async def _refund(self, order: Order, amount_minor: int) -> None:
        number = self._number("refund")
        request = CreateRefundRequest(
            request_id=number,
            order_id=order.id,
            merchant_refund_no=number,
            amount=Money(currency_code=order.amount.currency_code, amount_minor=amount_minor),
            reason="changed my mind",
        )
        stub = TradeServiceStub(self._world.edge("trade"))
        await self._insist(lambda: stub.CreateRefund(request), 0.2)

    # Manners.

    async def _insist(self, work: Callable[[], Awaitable[T]], twice: float) -> T | None:
        """Ask until there is an answer or patience is over; sometimes ask twice at once."""
        if self._chance.random() < twice:
            answers = await gather(self._insist(work, 0.0), self._insist(work, 0.0))
            return answers[0] if answers[0] is not None else answers[1]
        for _ in range(_PATIENCE):
            try:
                return await work()
            except PaymeshError as error:
                if error.outcome is Outcome.NOT_EXECUTED and error.retry in (
                    Retry.NEVER,
                    Retry.NEW_ID,
                ):
                    return None
            await sleep(self._chance.uniform(0.1, 15.0))
        return None

    def _number(self, what: str) -> str:
        self._numbers += 1
        return f"{what}-{self._numbers}"


def _account(owner: str, kind: str, currency: str) -> str:
    return account_id_for(owner, kind, currency, tenant_id="default", mode="TEST")


def _as(merchant_id: str) -> CallContext:
    principal = Principal(
        tenant_id="default",
        mode=Mode.TEST,
        merchant_id=merchant_id,
        actor_type=ActorType.MERCHANT,
        actor_id="key_1",
    )
    return CallContext(principal=principal)


def open_shop(world: World) -> Any:
    """Return the customers of a world."""
    return Shop(world)
