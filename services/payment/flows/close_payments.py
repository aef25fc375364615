"""Close every open payment of an order, so that the order can be closed."""

from __future__ import annotations

import asyncio

from common.errors import PaymeshError
from services.payment.domain.states import PAYMENT_LOST
from services.payment.flows.advance_payment import close_payment
from services.payment.flows.parts import Parts


async def close_payments(parts: Parts, order_id: str) -> bool:
    """Ask the channels to close; return True when no payment of the order can win any more."""
    payments = await parts.store.find_payments_of_order(order_id)
    open_ones = [payment for payment in payments if payment.state not in PAYMENT_LOST]
    answers = await asyncio.gather(
        *(close_payment(parts, payment) for payment in open_ones), return_exceptions=True
    )
    closed = True
    for answer in answers:
        if isinstance(answer, PaymeshError):
            closed = False  # not known: the order stays CLOSING and trade asks again
        elif isinstance(answer, BaseException):
            raise answer
        else:
            closed = closed and answer.state in PAYMENT_LOST
    return closed
