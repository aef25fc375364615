"""A process that dies at any step of trade's flows leaves no order or refund half-done for good.

Each flow is done again and again, dying one step later each time, before the step's effect or after
it. Then its caller repeats it and the rounds come by, and everything has ended, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from dying_parts import Crash, Fault
from hosted_services import until
from paymesh.payment.v1 import PAYMENT_REFUND_STATE_SUCCEEDED
from paymesh.trade.v1 import (
    ORDER_STATE_CLOSED,
    ORDER_STATE_COMPLETED,
    ORDER_STATE_CREATED,
    REFUND_STATE_COMPLETED,
    GetOrderRequest,
    Order,
)
from trade_kit import TradeKit

from common.context import bound
from common.errors import PaymeshError
from services.trade.convert import new_order_from_proto
from services.trade.flows.claim_order import claim_order
from services.trade.flows.close_order import close_due_orders, close_order
from services.trade.flows.create_order import create_order
from services.trade.flows.create_refund import NewRefund, create_refund, repeat_due_refunds
from services.trade.flows.parts import Parts

STEPS_MAX = 30
Step = Callable[[Parts], Awaitable[Any]]

both_sides = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


async def _die(trade: TradeKit, act: Step, fault: Fault) -> bool:
    """Do it once with parts that die, once as the caller repeats it; say whether it died."""
    died = False
    with bound(trade.call):
        try:
            await act(trade.dying(fault))
        except Crash:
            died = True
        with suppress(PaymeshError):
            await act(trade.parts)
    return died


async def _rounds(trade: TradeKit) -> None:
    trade.kit.clock.ahead += timedelta(minutes=20)
    while await close_due_orders(trade.parts) + await repeat_due_refunds(trade.parts):
        pass


def _is_last(step: int, died: bool) -> bool:
    if step == STEPS_MAX - 1:
        pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
    return not died


@both_sides
async def test_dying_while_an_order_is_made_makes_it_once(trade: TradeKit, after: bool) -> None:
    for step in range(STEPS_MAX):
        request = trade.new_order(expires_in_seconds=3600)
        new = new_order_from_proto(request)

        async def act(parts: Parts, asked: Any = new) -> None:
            await create_order(parts, asked, trade.call)

        died = await _die(trade, act, Fault(step, after))
        order = await trade.create(request)
        assert order.state == ORDER_STATE_CREATED
        rows = await trade.kit.rows(
            "trade",
            "SELECT id FROM orders WHERE merchant_id = $1 AND request_id = $2",
            trade.merchant_id,
            request.request_id,
        )
        assert [row["id"] for row in rows] == [order.id]
        assert await trade.history(order.id) == [("", "CREATED")]
        if _is_last(step, died):
            break
    assert step >= 1


@both_sides
async def test_dying_while_an_order_is_closed_closes_it(trade: TradeKit, after: bool) -> None:
    for step in range(STEPS_MAX):
        order = await trade.create(trade.new_order(expires_in_seconds=3600))

        async def act(parts: Parts, order_id: str = order.id) -> None:
            await close_order(parts, order_id, "close", trade.call)

        died = await _die(trade, act, Fault(step, after))
        await _rounds(trade)
        await _check_closed(trade, order)
        if _is_last(step, died):
            break
    assert step >= 4


@both_sides
async def test_dying_in_the_round_of_expiry_closes_in_the_next(
    trade: TradeKit, after: bool
) -> None:
    for step in range(STEPS_MAX):
        order = await trade.create(trade.new_order(expires_in_seconds=60))
        trade.kit.clock.ahead += timedelta(minutes=2)
        died = await _die(trade, close_due_orders, Fault(step, after))
        await _rounds(trade)
        await _check_closed(trade, order)
        if _is_last(step, died):
            break
    assert step >= 4


async def _check_closed(trade: TradeKit, order: Order) -> None:
    assert (await trade.get(order.id)).state == ORDER_STATE_CLOSED
    moves = [("", "CREATED"), ("CREATED", "CLOSING"), ("CLOSING", "CLOSED")]
    assert await trade.history(order.id) == moves
    told = await trade.kit.events("trade", "trade.order.closed.v1")
    assert [event.aggregate_id for event in told].count(order.id) == 1
    assert await trade.kit.rows("trade", "SELECT order_id FROM open_orders") == []


@both_sides
async def test_dying_while_an_order_is_claimed_lets_one_payment_win(
    trade: TradeKit, after: bool
) -> None:
    for step in range(STEPS_MAX):
        order = await trade.create(trade.new_order())
        payment_id, other = trade.new_payment_id(), trade.new_payment_id()

        async def act(parts: Parts, one: tuple[str, str] = (order.id, payment_id)) -> None:
            await claim_order(parts, *one, trade.call)

        died = await _die(trade, act, Fault(step, after))
        assert not await trade.claim(order.id, other)
        event = trade.succeeded(order, payment_id)
        await trade.hear(event)
        await trade.hear(event)
        done = await trade.get(order.id)
        assert (done.state, done.payment_id) == (ORDER_STATE_COMPLETED, payment_id)
        told = await trade.kit.events("trade", "trade.order.completed.v1")
        assert [told_one.aggregate_id for told_one in told].count(order.id) == 1
        if _is_last(step, died):
            break
    assert step >= 1


@both_sides
async def test_dying_while_money_is_given_back_gives_it_back_once(
    trade: TradeKit, after: bool
) -> None:
    trade.script.refund_state = PAYMENT_REFUND_STATE_SUCCEEDED
    for step in range(STEPS_MAX):
        order = await trade.completed(1200)
        asked = NewRefund(f"refund-{step}", order.id, f"refund-{step}", "USD", 500, "scratched")

        async def act(parts: Parts, asked: NewRefund = asked) -> None:
            await create_refund(parts, asked, trade.call)

        died = await _die(trade, act, Fault(step, after))
        await _rounds(trade)
        (row,) = await trade.kit.rows(
            "trade", "SELECT id FROM refunds WHERE order_id = $1", order.id
        )
        assert (await trade.get_refund(row["id"])).state == REFUND_STATE_COMPLETED
        sums = await trade.kit.rows(
            "trade", "SELECT refunded_minor, refunding_minor FROM orders WHERE id = $1", order.id
        )
        assert sums == [{"refunded_minor": 500, "refunding_minor": 0}]
        told = await trade.kit.events("trade", "trade.refund.completed.v1")
        assert [event.aggregate_id for event in told].count(row["id"]) == 1
        assert len(set(trade.script.refund_calls)) == step + 1
        if _is_last(step, died):
            break
    assert step >= 3


async def test_reading_an_old_open_order_makes_payment_look(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order(expires_in_seconds=3600))
    await trade.get(order.id)
    trade.kit.clock.ahead += timedelta(seconds=10)
    for _ in range(5):
        await trade.get(order.id)
    await _until_asked(trade, order.id)
    assert trade.script.list_calls == [order.id]
    trade.kit.clock.ahead += timedelta(seconds=10)
    with bound(trade.call):
        await trade.payment.GetOrder(GetOrderRequest(order_id=order.id))
    await trade.get(order.id)
    await _until_asked(trade, order.id, 2)
    assert trade.script.list_calls == [order.id] * 2
    await close_order_of(trade, order)
    trade.kit.clock.ahead += timedelta(seconds=10)
    await trade.get(order.id)
    assert trade.script.list_calls == [order.id] * 2


async def close_order_of(trade: TradeKit, order: Order) -> None:
    """Close an order by its merchant."""
    with bound(trade.call):
        await close_order(trade.parts, order.id, "close", trade.call)


async def _until_asked(trade: TradeKit, order_id: str, times: int = 1) -> None:
    async def asked() -> bool:
        return trade.script.list_calls.count(order_id) >= times

    await until(asked)


async def test_reading_an_old_open_refund_asks_about_it(trade: TradeKit) -> None:
    order = await trade.completed(1200)
    refund = await trade.refund(trade.new_refund(order, 500))
    assert trade.script.refund_calls == [refund.id]
    await trade.get_refund(refund.id)
    trade.script.refund_state = PAYMENT_REFUND_STATE_SUCCEEDED
    trade.kit.clock.ahead += timedelta(seconds=10)
    await trade.get_refund(refund.id)

    async def completed() -> bool:
        return (await trade.get_refund(refund.id)).state == REFUND_STATE_COMPLETED

    await until(completed)
    assert trade.script.refund_calls == [refund.id] * 2
