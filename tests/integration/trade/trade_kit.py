"""Trade and settlement hosted for real; payment and the ledger's date played to a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import hosted_services
import pytest
from dying_parts import Breaking, Fault
from hosted_services import HostedKit, hosting, merchant_call
from paymesh.account.v1 import (
    AccountServiceServicer,
    GetBusinessDateResponse,
    GetOwnerBalancesResponse,
    OwnerBalance,
    add_AccountServiceServicer_to_server,
)
from paymesh.payment.v1 import (
    PAYMENT_REFUND_STATE_PENDING,
    ClosePaymentsResponse,
    ListPaymentsResponse,
    Payment,
    PaymentRefund,
    PaymentServiceServicer,
    PaymentSucceeded,
    RefundPaymentResponse,
    add_PaymentServiceServicer_to_server,
)
from paymesh.trade.v1 import (
    ClaimOrderRequest,
    CreateOrderRequest,
    CreateRefundRequest,
    GetOrderRequest,
    GetRefundRequest,
    Order,
    Refund,
    TradeServiceStub,
)
from paymesh.type.v1 import Money

import services.settlement.wiring
import services.trade.wiring
from common.context import ActorType, CallContext, Mode, Principal, bound
from common.errors import NotFoundError, PaymeshError
from common.events.consumer import Consumer
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import derive
from common.service import Register
from services.trade.config import TradeSettings
from services.trade.events import Announcements, PaymentNews
from services.trade.fee_plans import FeePlans
from services.trade.flows.parts import OrderLanes, Parts
from services.trade.peers import Peers
from services.trade.store.orders import OrderStore
from services.trade.store.refunds import RefundStore
from services.trade.wallets import Wallets

BUSINESS_DATE = "1997-01-02"
NOBODY = "usr_" + "9" * 26
"""A user that the ledger does not know."""


class PlayedAccount(AccountServiceServicer):  # type: ignore[misc]
    """The ledger, which knows what day it is."""

    async def GetBusinessDate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what day it is."""
        return GetBusinessDateResponse(business_date=BUSINESS_DATE)

    async def GetOwnerBalances(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what a user has: a wallet in USD, unless nobody knows the user."""
        if request.owner_id == NOBODY:
            raise NotFoundError(resource="owner")
        wallet = OwnerBalance(kind="user_available", available=Money(currency_code="USD"))
        return GetOwnerBalancesResponse(balances=[wallet])


@dataclass
class Script:
    """What payment answers."""

    closed: bool | PaymeshError = True
    refund_state: int = PAYMENT_REFUND_STATE_PENDING
    refund_failure: PaymeshError | None = None
    list_calls: list[str] = field(default_factory=list)
    refund_calls: list[str] = field(default_factory=list)
    close_calls: list[str] = field(default_factory=list)
    before_closed: Any = None
    """Awaited before ClosePayments answers."""


class PlayedPayment(PaymentServiceServicer):  # type: ignore[misc]
    """Payment, which does as the script says."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def ClosePayments(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Close, as the script says."""
        self.script.close_calls.append(request.order_id)
        if self.script.before_closed is not None:
            await self.script.before_closed(request.order_id)
        if isinstance(self.script.closed, PaymeshError):
            raise self.script.closed
        return ClosePaymentsResponse(closed=self.script.closed)

    async def ListPayments(self, request: Any, context: Any) -> Any:  # noqa: N802
        """There are none."""
        self.script.list_calls.append(request.order_id)
        return ListPaymentsResponse()

    async def RefundPayment(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Give back, as the script says."""
        self.script.refund_calls.append(request.refund_id)
        if self.script.refund_failure is not None:
            raise self.script.refund_failure
        return RefundPaymentResponse(
            refund=PaymentRefund(
                id=request.refund_id,
                payment_id=request.payment_id,
                state=self.script.refund_state,  # type: ignore[arg-type]
                amount=request.amount,
                fee_returned_minor=1,
                business_date=BUSINESS_DATE,
            )
        )


# The played services only answer what trade asks them.
for _played in (PlayedAccount, PlayedPayment):
    _played.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@dataclass
class TradeKit:
    """Trade as its callers see it, and what lies under it."""

    kit: HostedKit
    script: Script
    parts: Parts
    consumer: Consumer
    edge: TradeServiceStub
    payment: TradeServiceStub
    operator: TradeServiceStub
    merchant_id: str = ""
    number: int = 0

    @classmethod
    def of(cls, kit: HostedKit, script: Script) -> TradeKit:
        """Return trade's parts beside the hosted ones, on the same rows."""
        outbox, announcements = Outbox(), Announcements()
        orders = OrderStore(kit.pools["trade"], outbox, announcements, kit.clock)
        refunds = RefundStore(kit.pools["trade"], outbox, announcements, kit.clock)
        peers = Peers(
            payment=kit.channel("trade", "payment"),
            settlement=kit.channel("trade", "settlement"),
            account=kit.channel("trade", "account"),
        )
        parts = Parts(
            orders,
            refunds,
            OrderLanes(orders, 512),
            peers,
            FeePlans(peers.find_fee_plan, kit.clock, 10),
            Wallets(peers.find_wallet_currencies, kit.clock, 10),
            kit.clock,
            kit.ids,
            TradeSettings(),
        )
        news = PaymentNews(orders, refunds, outbox)
        return cls(
            kit,
            script,
            parts,
            kit.consumer("trade", "trade.payments", news.handle),
            TradeServiceStub(kit.channel("edge", "trade")),
            TradeServiceStub(kit.channel("payment", "trade")),
            TradeServiceStub(kit.channel("operator", "trade")),
        )

    def dying(self, fault: Fault) -> Parts:
        """Return the parts, which die where the fault says."""
        parts: dict[str, Any] = {
            name: Breaking(getattr(self.parts, name), fault)
            for name in ("orders", "refunds", "lanes", "peers")
        }
        return replace(self.parts, **parts)

    @property
    def call(self) -> CallContext:
        """The merchant's circumstances."""
        return merchant_call(self.merchant_id)

    def new_order(self, amount_minor: int = 1200, **changes: Any) -> CreateOrderRequest:
        """Return an order to be made, under a number of its own."""
        self.number += 1
        fields: dict[str, Any] = {
            "request_id": f"request-{self.number}",
            "merchant_order_no": f"no-{self.number}",
            "amount": Money(currency_code="USD", amount_minor=amount_minor),
            "subject": "two records",
            "metadata": {"shelf": "7"},
        }
        return CreateOrderRequest(**(fields | changes))

    async def create(self, request: CreateOrderRequest) -> Order:
        """Make an order through the edge."""
        with bound(self.call):
            return (await self.edge.CreateOrder(request)).order

    async def claim(self, order_id: str, payment_id: str) -> bool:
        """Claim an order as payment does; say whether it won."""
        with bound(self.call):
            answer = await self.payment.ClaimOrder(
                ClaimOrderRequest(order_id=order_id, payment_id=payment_id)
            )
        return answer.won

    async def get(self, order_id: str) -> Order:
        """Read an order."""
        with bound(self.call):
            return (await self.edge.GetOrder(GetOrderRequest(order_id=order_id))).order

    async def get_refund(self, refund_id: str) -> Refund:
        """Read a refund."""
        with bound(self.call):
            return (await self.edge.GetRefund(GetRefundRequest(refund_id=refund_id))).refund

    def new_payment_id(self) -> str:
        """Return a payment's id."""
        return self.kit.ids.new("pay")

    def event(self, kind: str, aggregate_id: str, payload: bytes, version: int = 3) -> NewEvent:
        """Return an event as payment tells it."""
        return NewEvent(
            event_id=derive("evt", aggregate_id, kind, version),
            type=kind,
            aggregate_id=aggregate_id,
            aggregate_version=version,
            payload=payload,
            principal=Principal(
                mode=Mode.TEST,
                merchant_id=self.merchant_id,
                actor_type=ActorType.SERVICE,
                actor_id="payment",
            ),
            occurred_at=self.kit.clock.now(),
            biz_trace_id="biz_1",
        )

    def succeeded(self, order: Order, payment_id: str, **changes: Any) -> NewEvent:
        """Return the news that a payment of an order is booked."""
        fields: dict[str, Any] = {
            "id": payment_id,
            "order_id": order.id,
            "merchant_id": order.merchant_id,
            "amount": order.amount,
            "fee_minor": order.fee.fee_minor,
            "business_date": BUSINESS_DATE,
            "biz_trace_id": order.biz_trace_id,
        }
        payment = Payment(**(fields | changes))
        body = PaymentSucceeded(
            payment=payment,
            net_minor=order.amount.amount_minor - order.fee.fee_minor,
            order_type=order.type,
        )
        return self.event("payment.payment.succeeded.v1", payment_id, body.SerializeToString())

    async def hear(self, *events: NewEvent) -> None:
        """Let trade hear of events."""
        await self.consumer.handle([hosted_services.heard(event) for event in events])

    async def completed(self, amount_minor: int = 1200, **changes: Any) -> Order:
        """Return an order that was made, claimed and booked."""
        order = await self.create(self.new_order(amount_minor, **changes))
        payment_id = self.new_payment_id()
        assert await self.claim(order.id, payment_id)
        await self.hear(self.succeeded(order, payment_id))
        return await self.get(order.id)

    def new_refund(self, order: Order, amount_minor: int, **changes: Any) -> CreateRefundRequest:
        """Return a refund to be asked for."""
        self.number += 1
        fields: dict[str, Any] = {
            "request_id": f"request-{self.number}",
            "order_id": order.id,
            "merchant_refund_no": f"refund-{self.number}",
            "amount": Money(currency_code="USD", amount_minor=amount_minor),
            "reason": "scratched",
        }
        return CreateRefundRequest(**(fields | changes))

    async def refund(self, request: CreateRefundRequest) -> Refund:
        """Ask money back through the edge."""
        with bound(self.call):
            return (await self.edge.CreateRefund(request)).refund

    async def history(self, noun_id: str) -> list[tuple[str, str]]:
        """Return the moves of a noun."""
        rows = await self.kit.rows(
            "trade",
            "SELECT from_state, to_state FROM history WHERE id = $1 ORDER BY version",
            noun_id,
        )
        return [(row["from_state"], row["to_state"]) for row in rows]


def wirings_and_plays() -> tuple[Script, list[ModuleType], dict[str, Register]]:
    """Return a script, the services that are real, and those that it plays."""
    script = Script()
    plays = {
        "account": partial(add_AccountServiceServicer_to_server, PlayedAccount()),
        "payment": partial(add_PaymentServiceServicer_to_server, PlayedPayment(script)),
    }
    return script, [services.trade.wiring, services.settlement.wiring], plays


@pytest.fixture(scope="module")
async def hosted(database_url: str) -> AsyncIterator[TradeKit]:
    script, wirings, plays = wirings_and_plays()
    async with hosting(database_url, wirings, plays) as kit:
        yield TradeKit.of(kit, script)


@pytest.fixture
async def trade(hosted: TradeKit) -> TradeKit:
    """Trade with a merchant of its own and a fresh script."""
    hosted.merchant_id = hosted.kit.ids.new("mer")
    fresh = Script()
    hosted.script.__dict__.update(fresh.__dict__)
    async with hosted.kit.pools["trade"].acquire() as connection:
        await connection.execute("DELETE FROM open_orders")
        await connection.execute("DELETE FROM open_refunds")
    return hosted
