"""An order is closed: by its merchant, or because its time has passed.

First the intent (CLOSING), then payment is asked to close what is open, then the outcome. "Already
paid" turns into success by the claim; no answer leaves CLOSING, and the order is asked about again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from common.context import CallContext, bound
from common.db.history import cause_of_request
from common.errors import PaymeshError, StateConflictError
from services.trade.domain import Order, OrderState
from services.trade.flows.parts import Parts, own_call, visible_order
from services.trade.store.rows import ACTOR

_log = logging.getLogger(__name__)


async def close_order(parts: Parts, order_id: str, request_id: str, call: CallContext) -> Order:
    """Close an order that nobody has paid; return it CLOSED, or CLOSING while nobody knows.

    Raises:
        NotFoundError: none, or another merchant's.
        StateConflictError: it is paid.
    """
    order = await visible_order(parts, order_id, call.principal)
    cause = cause_of_request(request_id)
    if order.state is OrderState.CREATED:
        await parts.orders.begin_closing([order.id], call.principal.actor, cause)
    if order.state in (OrderState.CREATED, OrderState.CLOSING):
        closed = await _ask(parts, order)
        if closed:
            await parts.orders.finish_closing([order.id], cause)
        else:
            await parts.orders.put_off([(order.id, parts.clock.now() + parts.pause(1))])
        order = await visible_order(parts, order_id, call.principal)
    if order.state in (OrderState.PAID, OrderState.COMPLETED):
        raise StateConflictError(resource="order", state=order.state)
    return order


async def close_due_orders(parts: Parts) -> int:
    """Close orders whose time has passed, and ask again for those that are closing.

    Returns how many were looked at.
    """
    settings = parts.settings
    now = parts.clock.now()
    due = await parts.orders.take_due(now + parts.pause(1), settings.expiry_batch_max)
    if not due:
        return 0
    found = await parts.orders.find_orders([order_id for order_id, _ in due])
    orders = [order for order in found if order is not None]
    await parts.orders.begin_closing(
        [order.id for order in orders if order.state is OrderState.CREATED], ACTOR, "expired"
    )
    # An order that is PAID ends by the event of its payment; it is only looked at again later.
    open_ones = [one for one in orders if one.state in (OrderState.CREATED, OrderState.CLOSING)]
    closed = await _ask_all(parts, open_ones)
    await parts.orders.finish_closing(
        [order.id for order, is_closed in zip(open_ones, closed, strict=True) if is_closed],
        "expired",
    )
    await parts.orders.put_off(
        [(order_id, now + parts.pause(attempts)) for order_id, attempts in due]
    )
    return len(due)


async def _ask_all(parts: Parts, orders: Sequence[Order]) -> list[bool]:
    at_once = asyncio.Semaphore(parts.settings.calls_at_once_max)

    async def ask(order: Order) -> bool:
        async with at_once:
            with bound(own_call(order, "expired")):
                return await _ask(parts, order)

    return await asyncio.gather(*(ask(order) for order in orders))


async def _ask(parts: Parts, order: Order) -> bool:
    """Return whether all payments of the order are surely closed."""
    try:
        return await parts.peers.close_payments(order.id)
    except PaymeshError as error:
        _log.info("order %s stays CLOSING: %s", order.id, error)
        return False
