"""Trade's stores on one side, and the orders and refunds that cases are about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from common.clock import SystemClock
from common.events.outbox import Outbox
from common.ids import IdFactory, derive
from services.trade.domain import Order, OrderState, Refund, RefundState
from services.trade.events import Announcements
from services.trade.store.facts import FactStore
from services.trade.store.orders import OrderStore
from services.trade.store.refunds import RefundStore
from tests.conformance.stores.twins import Side

IDS = IdFactory(SystemClock())
START = datetime(2030, 1, 1, 8, tzinfo=UTC)


@dataclass
class SetClock(SystemClock):
    """The services' clock, set by the case."""

    at: datetime = START

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.at

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


@dataclass
class TradeSide:
    """Orders and refunds on one side."""

    side: Side
    clock: SetClock = field(default_factory=SetClock)
    parent: str = field(default_factory=lambda: IDS.new("tst"))

    def __post_init__(self) -> None:
        outbox, announcements = Outbox(), Announcements()
        pool = self.side.pool
        self.pool = pool
        self.orders = OrderStore(pool, outbox, announcements, self.clock)
        self.refunds = RefundStore(pool, outbox, announcements, self.clock)
        self.facts = FactStore(pool)

    def order_id(self, number: int) -> str:
        """The id of an order of the case."""
        return derive("trd", self.parent, number)

    def payment_id(self, number: int) -> str:
        """The id of a payment of the case."""
        return derive("pay", self.parent, number)

    def refund_id(self, number: int) -> str:
        """The id of a refund of the case."""
        return derive("rfd", self.parent, number)

    def order(self, number: int, **changes: Any) -> Order:
        """An order to be written."""
        return replace(
            Order(
                id=self.order_id(number),
                tenant_id="default",
                mode="TEST",
                merchant_id="mer_1",
                actor="MERCHANT:key_1",
                request_id=f"request-{number}",
                merchant_order_no=f"no-{number}",
                type="purchase",
                state=OrderState.CREATED,
                version=1,
                currency_code="USD",
                amount_minor=1000,
                fee_minor=6,
                fee_rate_ppm=6000,
                fee_returned_on_refund=True,
                user_id="",
                subject="two records",
                payment_id="",
                refunded_minor=0,
                refunding_minor=0,
                biz_trace_id=f"biz_{number}",
                metadata={"shelf": "7"},
                expires_in_seconds=0,
                business_date="",
                expires_at=START + timedelta(hours=2, seconds=number),
                created_at=START,
                updated_at=START,
            ),
            **changes,
        )

    def refund(self, number: int, order: Order, **changes: Any) -> Refund:
        """A refund to be written."""
        return replace(
            Refund(
                id=self.refund_id(number),
                order_id=order.id,
                payment_id=order.payment_id,
                tenant_id=order.tenant_id,
                mode=order.mode,
                merchant_id=order.merchant_id,
                actor=order.actor,
                request_id=f"refund-{number}",
                merchant_refund_no=f"rno-{number}",
                state=RefundState.PROCESSING,
                version=1,
                currency_code=order.currency_code,
                amount_minor=100,
                fee_returned_minor=0,
                reason="broken",
                failure_reason="",
                biz_trace_id=order.biz_trace_id,
                created_at=START,
                updated_at=START,
            ),
            **changes,
        )
