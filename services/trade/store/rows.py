"""Rows as domain values, what both stores share."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from common.db.queries import load_queries
from common.db.types import Record
from common.events.event import NewEvent
from services.trade.domain import Order, OrderState, Refund, RefundState

QUERIES: Final = load_queries("services.trade")
"""The statements of this service."""

ACTOR: Final = "SERVICE:trade"
"""Who changes an order when an event or the time does it."""

_ORDER_COLUMNS: Final = 27
_REFUND_COLUMNS: Final = 19
_ORDER_STATES: Final = {state.value: state for state in OrderState}
_REFUND_STATES: Final = {state.value: state for state in RefundState}


class Announcer(Protocol):
    """Makes the events that tell of orders and refunds."""

    def order_completed(self, order: Order, at: datetime, cause: str) -> NewEvent:
        """The order is paid and booked, or was for nothing."""
        ...

    def order_closed(self, order: Order, at: datetime, cause: str) -> NewEvent:
        """The order ended without a payment."""
        ...

    def refund_changed(
        self, refund: Refund, order: Order, at: datetime, cause: str, business_date: str
    ) -> NewEvent:
        """The refund is completed, failed, or waits for funds: its state says which."""
        ...


def order_from(row: Record) -> Order:
    """Read an order; further columns behind its own are left alone."""
    values = list(row)[:_ORDER_COLUMNS]
    values[8] = _ORDER_STATES[values[8]]
    return Order(*values)


def refund_from(row: Record) -> Refund:
    """Read a refund; further columns behind its own are left alone."""
    values = list(row)[:_REFUND_COLUMNS]
    values[9] = _REFUND_STATES[values[9]]
    return Refund(*values)
