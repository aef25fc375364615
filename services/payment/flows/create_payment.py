"""Pay an order: validate → route ∥ assess → record intent → take the money → outcome → publish."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from common.context import CallContext, Principal, bound
from common.errors import IdConflictError, NotFoundError, PaymeshError
from common.ids import derive
from services.payment.domain.payments import (
    Assessment,
    Failure,
    Order,
    Owner,
    Payment,
    Route,
)
from services.payment.domain.plans import Plan, PlanRequest, Product
from services.payment.domain.states import PaymentState
from services.payment.errors import (
    OrderExpiredError,
    OrderNotPayableError,
    ProductFieldMissingError,
    ProductUnknownError,
)
from services.payment.events import payment_failed
from services.payment.flows.collect_payment import collect
from services.payment.flows.parts import Parts, call_of
from services.payment.store.rows import Intent


@dataclass(frozen=True, slots=True)
class NewPayment:
    """What a caller asks for."""

    request_id: str
    order_id: str
    product: str
    card_id: str = ""
    bank_code: str = ""
    return_url: str = ""
    client_ip: str = ""
    device_id: str = ""


async def create_payment(parts: Parts, asked: NewPayment, call: CallContext) -> Payment:
    """Pay an order by one product; a repeat gets the payment as it is.

    Raises:
        OrderNotPayableError, OrderExpiredError, ProductUnknownError, ProductFieldMissingError,
        IdConflictError, NotFoundError, ChannelNotEligibleError, UnavailableError: nothing was
            written, no money has moved.
    """
    order = await parts.peers.get_order(asked.order_id)
    principal = call.principal
    if principal.merchant_id and principal.merchant_id != order.merchant_id:
        raise NotFoundError(resource="order")
    payment_id = derive("pay", order.id, order.merchant_id, principal.mode, asked.request_id)
    repeat = await _refuse_or_repeat(parts, order, payment_id, asked)
    if repeat is not None:
        return repeat
    # From here on everything belongs to the order's story, also what the peers write.
    with bound(replace(call, biz_trace_id=order.biz_trace_id)):
        return await _pay(parts, order, payment_id, asked, principal)


async def _pay(
    parts: Parts, order: Order, payment_id: str, asked: NewPayment, principal: Principal
) -> Payment:
    product, plan = _plan(parts, order, asked)
    draft = _draft(parts, order, payment_id, asked, plan, principal)
    route, assessment = await _route_and_assess(parts, draft)
    payment = _decided(draft, route, assessment)
    intent_call = call_of(payment)
    now = payment.created_at
    blocked = payment.state is PaymentState.FAILED
    earlier = await parts.writer.record_intent(
        Intent(
            payment,
            intent_call,
            parts.first_question_at(now),
            (payment_failed(payment, intent_call, now),) if blocked else (),
        )
    )
    if earlier is not None:
        return _same_or_conflict(earlier, asked)
    if blocked:
        return payment
    candidates = tuple(channel for channel, _ in route.candidates[1:])
    return await collect(parts, payment, product.plan(_plan_request(order, asked)), candidates)


async def _refuse_or_repeat(
    parts: Parts, order: Order, payment_id: str, asked: NewPayment
) -> Payment | None:
    """Return the earlier payment of this request when the order takes no more; else refuse."""
    payable = order.state == "CREATED" and order.amount.amount_minor > 0
    expired = order.expires_at <= parts.clock.now()
    if payable and not expired:
        return None
    earlier = await parts.store.find_payment(payment_id)
    if earlier is not None:
        return _same_or_conflict(earlier, asked)
    if payable:
        raise OrderExpiredError(order_id=order.id)
    raise OrderNotPayableError(order_id=order.id, state=order.state)


def _plan_request(order: Order, asked: NewPayment) -> PlanRequest:
    return PlanRequest(order.type, order.user_id, asked.card_id, asked.bank_code, asked.return_url)


def _plan(parts: Parts, order: Order, asked: NewPayment) -> tuple[Product, Plan]:
    product = parts.products.get(asked.product)
    if product is None or order.type not in product.order_types:
        raise ProductUnknownError(product=asked.product)
    plan = product.plan(_plan_request(order, asked))
    if plan.missing_fields:
        raise ProductFieldMissingError(field=plan.missing_fields[0])
    return product, plan


def _draft(
    parts: Parts,
    order: Order,
    payment_id: str,
    asked: NewPayment,
    plan: Plan,
    principal: Principal,
) -> Payment:
    return Payment(
        id=payment_id,
        order_id=order.id,
        owner=Owner(principal.tenant_id, str(principal.mode), order.merchant_id, principal.actor),
        product=asked.product,
        form=plan.form,
        state=PaymentState.PENDING,
        amount=order.amount,
        user_id=order.user_id,
        card_id=asked.card_id,
        bank_code=asked.bank_code,
        order_type=order.type,
        biz_trace_id=order.biz_trace_id,
        created_at=parts.clock.now(),
        expires_at=order.expires_at,
        fee_minor=order.fee_minor,
        fee_returned_on_refund=order.fee_returned_on_refund,
        subject=order.subject,
        request_id=asked.request_id,
        client_ip=asked.client_ip,
        device_id=asked.device_id,
    )


async def _route_and_assess(parts: Parts, draft: Payment) -> tuple[Route, Assessment]:
    """Ask routing and risk at once; when there is no route, what risk reserved is given back."""
    action = "recharge" if draft.order_type == "recharge" else "pay"
    route, assessment = await asyncio.gather(
        parts.peers.choose_channel(draft.id, draft.product, draft.amount, draft.bank_code, ()),
        parts.peers.assess(draft, action),
        return_exceptions=True,
    )
    if isinstance(route, BaseException):
        if isinstance(assessment, Assessment):
            try:
                await parts.peers.release_reservation(draft.id)
            except PaymeshError:
                # It lapses by itself at the end of its lifetime; the refusal is what counts here.
                raise route from None
        raise route
    if isinstance(assessment, BaseException):
        raise assessment
    return route, assessment


def _decided(draft: Payment, route: Route, assessment: Assessment) -> Payment:
    """Return the intent for whatever risk said: pass → PENDING, block → FAILED."""
    channel, reason = route.candidates[0]
    decided = replace(
        draft,
        channel=channel,
        channel_reason=reason,
        risk_verdict=assessment.verdict,
        risk_rules=assessment.rules,
    )
    if assessment.verdict == "PASS":
        return decided
    # A challenge has no answer yet in any product, so it stops the payment as a block does.
    failure = Failure(
        "RISK_BLOCKED", decline_code=",".join(assessment.rules), advice="OTHER_METHOD"
    )
    return replace(decided, state=PaymentState.FAILED, failure=failure)


def _same_or_conflict(earlier: Payment, asked: NewPayment) -> Payment:
    for field in ("product", "card_id", "bank_code"):
        if getattr(earlier, field) != getattr(asked, field):
            raise IdConflictError(id=asked.request_id, field=field)
    return earlier
