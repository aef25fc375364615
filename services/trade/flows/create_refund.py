"""Money is asked back on an order: intent, call to payment, outcome.

The intent takes its part of what is left of the order, so that two refunds never promise the same
money; payment holds the cap that counts. A call whose answer is lost is made again with the same
refund id until payment says what became of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from common.context import CallContext, bound
from common.db.history import cause_of_request
from common.errors import IdConflictError, PaymeshError
from services.trade.domain import (
    Order,
    OrderState,
    Refund,
    RefundState,
    check_amount,
    differing_refund_field,
)
from services.trade.errors import (
    ContradictionError,
    CurrencyMismatchError,
    MerchantNumberUsedError,
    OrderNotRefundableError,
)
from services.trade.flows.parts import Parts, own_call, visible_order

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewRefund:
    """A refund as it is asked for."""

    request_id: str
    order_id: str
    merchant_refund_no: str
    currency_code: str
    amount_minor: int
    reason: str


async def create_refund(parts: Parts, asked: NewRefund, call: CallContext) -> Refund:
    """Give money back, or return the refund that the same request has made.

    Raises:
        NotFoundError: no such order, or another merchant's.
        CurrencyUnknownError, AmountOutOfRangeError, CurrencyMismatchError: no such amount.
        OrderNotRefundableError: the order is not completed, or nothing was paid.
        RefundExceedsPaymentError: less is left; nothing was written.
        IdConflictError: the request id was used with other content.
        MerchantNumberUsedError: the number stands for another refund.
    """
    check_amount(asked.currency_code, asked.amount_minor, may_be_zero=False)
    order = await visible_order(parts, asked.order_id, call.principal)
    refund = _draft(parts, asked, order, call)
    if order.currency_code != asked.currency_code:
        raise CurrencyMismatchError(got=asked.currency_code, expected=order.currency_code)
    if order.state is not OrderState.COMPLETED or not order.payment_id:
        raise OrderNotRefundableError(order_id=order.id)
    earlier = await parts.refunds.insert_refund(refund, refund.created_at + parts.pause(1))
    if earlier is not None:
        return _check_repeat(refund, earlier)
    await ask_about_refund(parts, refund)
    return await _now(parts, refund)


def _check_repeat(refund: Refund, earlier: Refund) -> Refund:
    field = differing_refund_field(refund, earlier)
    if earlier.request_id != refund.request_id:
        raise MerchantNumberUsedError(field=field or "request_id")
    if field is not None:
        raise IdConflictError(id=refund.request_id, field=field)
    return earlier


def _draft(parts: Parts, asked: NewRefund, order: Order, call: CallContext) -> Refund:
    now = parts.clock.now()
    return Refund(
        id=parts.ids.new("rfd"),
        order_id=order.id,
        payment_id=order.payment_id,
        tenant_id=order.tenant_id,
        mode=order.mode,
        merchant_id=order.merchant_id,
        actor=call.principal.actor,
        request_id=asked.request_id,
        merchant_refund_no=asked.merchant_refund_no,
        state=RefundState.PROCESSING,
        version=1,
        currency_code=asked.currency_code,
        amount_minor=asked.amount_minor,
        fee_returned_minor=0,
        reason=asked.reason,
        failure_reason="",
        biz_trace_id=order.biz_trace_id,
        created_at=now,
        updated_at=now,
    )


async def _now(parts: Parts, refund: Refund) -> Refund:
    found = (await parts.refunds.find_refunds([refund.id]))[0]
    return refund if found is None else found


async def ask_about_refund(parts: Parts, refund: Refund) -> None:
    """Call payment in the refund's story, and apply what it says; nobody's answer changes nothing.

    The caller has its refund whatever happens here: the intent stands and is asked about again.
    """
    with bound(own_call(refund, cause_of_request(refund.request_id))):
        try:
            news = await parts.peers.refund_payment(refund)
        except PaymeshError as error:
            _log.info("refund %s stays %s: %s", refund.id, refund.state, error)
            return
    if news is None:
        return
    try:
        await parts.refunds.settle([news])
    except ContradictionError:
        _log.exception("refund %s: payment contradicts itself", refund.id)


async def repeat_due_refunds(parts: Parts) -> int:
    """Ask payment again about refunds that have not ended; return how many were looked at."""
    now = parts.clock.now()
    due = await parts.refunds.take_due(now + parts.pause(1), parts.settings.expiry_batch_max)
    if not due:
        return 0
    await parts.refunds.put_off(
        [(refund_id, now + parts.pause(attempts)) for refund_id, attempts in due]
    )
    at_once = asyncio.Semaphore(parts.settings.calls_at_once_max)

    async def ask(refund: Refund) -> None:
        async with at_once:
            await ask_about_refund(parts, refund)

    found = await parts.refunds.find_refunds([refund_id for refund_id, _ in due])
    await asyncio.gather(*(ask(refund) for refund in found if refund is not None))
    return len(due)
