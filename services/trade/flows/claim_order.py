"""A payment that has received money asks to win its order."""

from __future__ import annotations

from common.context import CallContext
from common.errors import NotFoundError
from services.trade.domain import Claim, Order
from services.trade.flows.parts import Parts, may_see


async def claim_order(
    parts: Parts, order_id: str, payment_id: str, call: CallContext
) -> tuple[bool, Order]:
    """Return whether the payment has won, now or before, and the order after it.

    An order whose time has passed can be won as long as it is not closed. Raises NotFoundError.
    """
    order = await parts.lanes.claim(Claim(order_id, payment_id, call.causation_id))
    if order is None or not may_see(call.principal, order):
        raise NotFoundError(resource="order", id=order_id)
    return order.payment_id == payment_id, order
