"""What trade tells, and what it hears of payments and of the business date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Final

from google.protobuf.message import DecodeError
from paymesh.account.v1 import BusinessDateAdvanced
from paymesh.payment.v1 import PaymentRefund, PaymentSucceeded
from paymesh.payment.v1 import RefundFailed as PaymentRefundFailed
from paymesh.payment.v1 import RefundSucceeded as PaymentRefundSucceeded
from paymesh.payment.v1 import RefundWaiting as PaymentRefundWaiting
from paymesh.trade.v1 import (
    OrderClosed,
    OrderCompleted,
    RefundCompleted,
    RefundFailed,
    RefundWaiting,
)

from common.context import ActorType, Mode, Principal
from common.db.types import Connection
from common.events.consumer import AfterCommit
from common.events.event import Event, NewEvent
from common.events.outbox import Outbox
from common.ids import derive
from common.money import Money
from services.trade.convert import order_to_proto, refund_news, refund_to_proto
from services.trade.domain import Completion, Order, Refund, RefundNews, RefundState
from services.trade.store.orders import OrderStore
from services.trade.store.refunds import RefundStore

_PAYMENT_SUCCEEDED: Final = "payment.payment.succeeded.v1"
_BUSINESS_DATE_ADVANCED: Final = "account.business_date.advanced.v1"
_REFUND_EVENTS: Final[
    dict[
        str,
        type[PaymentRefundSucceeded] | type[PaymentRefundFailed] | type[PaymentRefundWaiting],
    ]
] = {
    "payment.refund.succeeded.v1": PaymentRefundSucceeded,
    "payment.refund.failed.v1": PaymentRefundFailed,
    "payment.refund.waiting.v1": PaymentRefundWaiting,
}

BINDINGS: Final = (_PAYMENT_SUCCEEDED, *_REFUND_EVENTS, _BUSINESS_DATE_ADVANCED)
"""Routing keys that trade hears."""


class Announcements:
    """Makes trade's events; ids are derived, so that a change is told under one id."""

    def order_completed(self, order: Order, at: datetime, cause: str) -> NewEvent:
        """`trade.order.completed.v1`."""
        payload = OrderCompleted(order=order_to_proto(order)).SerializeToString()
        return _event("trade.order.completed.v1", order, payload, at, cause, order.business_date)

    def order_closed(self, order: Order, at: datetime, cause: str) -> NewEvent:
        """`trade.order.closed.v1`."""
        payload = OrderClosed(order=order_to_proto(order)).SerializeToString()
        return _event("trade.order.closed.v1", order, payload, at, cause, "")

    def refund_changed(
        self, refund: Refund, order: Order, at: datetime, cause: str, business_date: str
    ) -> NewEvent:
        """`trade.refund.completed.v1`, `…failed.v1` or `…waiting.v1`, as its state says."""
        message = refund_to_proto(refund)
        if refund.state is RefundState.COMPLETED:
            payload = RefundCompleted(refund=message, order=order_to_proto(order))
            return _event(
                "trade.refund.completed.v1",
                refund,
                payload.SerializeToString(),
                at,
                cause,
                business_date,
            )
        if refund.state is RefundState.FAILED:
            body = RefundFailed(refund=message).SerializeToString()
            return _event("trade.refund.failed.v1", refund, body, at, cause, "")
        body = RefundWaiting(refund=message).SerializeToString()
        return _event("trade.refund.waiting.v1", refund, body, at, cause, "")


def _event(
    kind: str, noun: Order | Refund, payload: bytes, at: datetime, cause: str, business_date: str
) -> NewEvent:
    return NewEvent(
        event_id=derive("evt", noun.id, kind, noun.version),
        type=kind,
        aggregate_id=noun.id,
        aggregate_version=noun.version,
        payload=payload,
        principal=Principal(
            tenant_id=noun.tenant_id,
            mode=Mode(noun.mode),
            merchant_id=noun.merchant_id,
            actor_type=ActorType.SERVICE,
            actor_id="trade",
        ),
        occurred_at=at,
        biz_trace_id=noun.biz_trace_id,
        causation_id=cause,
        business_date=date.fromisoformat(business_date) if business_date else None,
    )


class PaymentNews:
    """Hears what became of payments and refunds, and applies it to orders."""

    def __init__(self, orders: OrderStore, refunds: RefundStore, outbox: Outbox) -> None:
        self._orders = orders
        self._refunds = refunds
        self._outbox = outbox

    async def handle(
        self, connection: Connection, events: Sequence[Event]
    ) -> Sequence[AfterCommit]:
        """Apply a batch inside the inbox's transaction.

        Raises:
            ContradictionError: an event says what the rows rule out.
            google.protobuf.message.DecodeError: a payload is not what its type names.
        """
        booked = [_completion(event) for event in events if event.type == _PAYMENT_SUCCEEDED]
        news = [one for event in events if (one := _refund_news(event)) is not None]
        if booked:
            await self._orders.complete_in(connection, booked)
        if news:
            await self._refunds.settle_in(connection, news)
        for event in events:
            if event.type == _BUSINESS_DATE_ADVANCED:
                message = BusinessDateAdvanced.FromString(event.payload)
                await self._orders.keep_business_date_in(
                    connection,
                    event.principal.tenant_id,
                    event.principal.mode,
                    message.business_date,
                )
        return [_nudge(self._outbox.notify)] if booked or news else []


def _nudge(notify: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        notify()

    return work


def _completion(event: Event) -> Completion:
    payment = PaymentSucceeded.FromString(event.payload).payment
    if not payment.id:
        raise DecodeError(f"{event.event_id} tells of no payment")
    business_date = event.business_date.isoformat() if event.business_date else ""
    return Completion(
        order_id=payment.order_id,
        payment_id=payment.id,
        amount=Money(payment.amount.currency_code, payment.amount.amount_minor),
        business_date=payment.business_date or business_date,
        cause=event.event_id,
    )


def _refund_news(event: Event) -> RefundNews | None:
    kind = _REFUND_EVENTS.get(event.type)
    if kind is None:
        return None
    refund: PaymentRefund = kind.FromString(event.payload).refund
    news = refund_news(refund, event.event_id)
    if news is None:
        raise DecodeError(f"{event.event_id} tells of a refund without its end")
    return news
