"""An order is made: priced, dated where it needs no payment, and written once."""

from __future__ import annotations

from datetime import timedelta

from common.context import CallContext, Principal
from common.errors import FieldInvalidError, IdConflictError
from services.trade.domain import (
    EXPIRES_IN_DEFAULT,
    NO_FEE,
    NewOrder,
    Order,
    OrderState,
    check_amount,
    complete_at_once,
    differing_field,
    price,
)
from services.trade.errors import MerchantNumberUsedError
from services.trade.flows.parts import Parts
from services.trade.trade_types import TRADE_TYPES, TYPE_DEFAULT


async def create_order(parts: Parts, asked: NewOrder, call: CallContext) -> Order:
    """Make an order, or return the one that the same request has made.

    Raises:
        FieldInvalidError: no such trade type, no merchant, or no user where one is needed.
        NotFoundError: the merchant has no such user, or the user no wallet to recharge.
        CurrencyUnknownError, AmountOutOfRangeError: no such amount can be ordered.
        IdConflictError: the request id was used with other content.
        MerchantNumberUsedError: the number stands for another order.
        UnavailableError: the fee plan or the business date is not to be had; nothing was done.
    """
    trade_type = TRADE_TYPES.get(asked.type or TYPE_DEFAULT)
    if trade_type is None:
        raise FieldInvalidError(field="type", rule="is no registered trade type")
    check_amount(asked.currency_code, asked.amount_minor, may_be_zero=trade_type.may_be_zero)
    if trade_type.needs_user and not asked.user_id:
        raise FieldInvalidError(field="user_id", rule="is needed for this type of order")
    principal = call.principal
    if not principal.merchant_id:
        raise FieldInvalidError(field="principal.merchant_id", rule="is needed to make an order")
    if asked.user_id:
        await parts.wallets.check(
            (principal.tenant_id, str(principal.mode), principal.merchant_id, asked.user_id),
            asked.currency_code,
            needs_currency=trade_type.needs_user,
        )
    order = _draft(parts, asked, call, trade_type.code)
    # An order for nothing has no fee, whatever the plan says.
    if trade_type.has_fee and order.amount_minor:
        order = price(
            order,
            await parts.fee_plans.find(principal.tenant_id, principal.mode, principal.merchant_id),
        )
    else:
        order = price(order, NO_FEE)
    if order.amount_minor == 0:
        order = complete_at_once(order, await _business_date(parts, principal))
    made = await parts.lanes.insert(order)
    if made.is_new:
        return made.order
    field = differing_field(order, made.order, names_story=bool(asked.biz_trace_id))
    if not made.holds_request:
        raise MerchantNumberUsedError(field=field or "request_id")
    if field is not None:
        raise IdConflictError(id=asked.request_id, field=field)
    return made.order


def _draft(parts: Parts, asked: NewOrder, call: CallContext, type_code: str) -> Order:
    now = parts.clock.now()
    expires_in = timedelta(seconds=asked.expires_in_seconds) or EXPIRES_IN_DEFAULT
    principal = call.principal
    return Order(
        id=parts.ids.new("trd"),
        tenant_id=principal.tenant_id,
        mode=principal.mode,
        merchant_id=principal.merchant_id,
        actor=principal.actor,
        request_id=asked.request_id,
        merchant_order_no=asked.merchant_order_no,
        type=type_code,
        state=OrderState.CREATED,
        version=1,
        currency_code=asked.currency_code,
        amount_minor=asked.amount_minor,
        fee_minor=0,
        fee_rate_ppm=0,
        fee_returned_on_refund=False,
        user_id=asked.user_id,
        subject=asked.subject,
        payment_id="",
        refunded_minor=0,
        refunding_minor=0,
        biz_trace_id=asked.biz_trace_id or call.biz_trace_id or parts.ids.new("biz"),
        metadata=asked.metadata,
        expires_in_seconds=asked.expires_in_seconds,
        business_date="",
        expires_at=now + expires_in,
        created_at=now,
        updated_at=now,
    )


async def _business_date(parts: Parts, principal: Principal) -> str:
    """Return the date that the ledger last told; asked for once, then heard of by events."""
    known = await parts.orders.find_business_date(principal.tenant_id, principal.mode)
    if not known:
        known = await parts.peers.find_business_date()
        await parts.orders.keep_business_date(principal.tenant_id, principal.mode, known)
    return known
