"""Closing: by the merchant or by time; never closed while a payment may still succeed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from paymesh.trade.v1 import (
    ORDER_STATE_CLOSED,
    ORDER_STATE_CLOSING,
    ORDER_STATE_COMPLETED,
    ORDER_STATE_CREATED,
    ORDER_STATE_PAID,
    CloseOrderRequest,
    Order,
)
from trade_kit import TradeKit

from common.context import bound
from common.errors import RemoteError, UnavailableError
from services.trade.flows.close_order import close_due_orders


async def close(trade: TradeKit, order_id: str) -> Order:
    with bound(trade.call):
        request = CloseOrderRequest(request_id="close", order_id=order_id)
        return (await trade.edge.CloseOrder(request)).order


async def test_closing_an_unpaid_order_ends_it_for_ever(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order())
    closed = await close(trade, order.id)
    assert closed.state == ORDER_STATE_CLOSED
    assert await close(trade, order.id) == closed
    assert trade.script.close_calls == [order.id]
    told = await trade.kit.events("trade", "trade.order.closed.v1")
    assert [event.aggregate_id for event in told].count(order.id) == 1
    assert not await trade.claim(order.id, trade.new_payment_id())
    assert await trade.kit.rows("trade", "SELECT order_id FROM open_orders") == []
    assert await trade.history(order.id) == [
        ("", "CREATED"),
        ("CREATED", "CLOSING"),
        ("CLOSING", "CLOSED"),
    ]


@pytest.mark.parametrize("answer", [False, UnavailableError(target="payment")])
async def test_closing_without_a_sure_answer_stays_closing_and_is_asked_again(
    trade: TradeKit, answer: bool | UnavailableError
) -> None:
    order = await trade.create(trade.new_order())
    trade.script.closed = answer
    assert (await close(trade, order.id)).state == ORDER_STATE_CLOSING
    assert await close_due_orders(trade.parts) == 0
    trade.script.closed = True
    trade.kit.clock.ahead += timedelta(minutes=1)
    assert await close_due_orders(trade.parts) == 1
    assert (await trade.get(order.id)).state == ORDER_STATE_CLOSED


async def test_a_payment_that_wins_while_closing_is_kept(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order())
    payment_id = trade.new_payment_id()

    async def win(order_id: str) -> None:
        assert await trade.claim(order_id, payment_id)

    trade.script.before_closed = win
    with pytest.raises(RemoteError) as caught:
        await close(trade, order.id)
    assert caught.value.remote_reason == "STATE_CONFLICT"
    after = await trade.get(order.id)
    assert (after.state, after.payment_id) == (ORDER_STATE_PAID, payment_id)
    await trade.hear(trade.succeeded(order, payment_id))
    assert (await trade.get(order.id)).state == ORDER_STATE_COMPLETED


async def test_closing_and_claiming_at_once_end_in_exactly_one_way(trade: TradeKit) -> None:
    orders = await asyncio.gather(*(trade.create(trade.new_order()) for _ in range(30)))

    async def try_close(order_id: str) -> bool:
        try:
            return (await close(trade, order_id)).state == ORDER_STATE_CLOSED
        except RemoteError as error:
            if error.remote_reason != "STATE_CONFLICT":
                raise
            return False

    async def race(order: Order) -> None:
        closed, won = await asyncio.gather(
            try_close(order.id), trade.claim(order.id, trade.new_payment_id())
        )
        assert closed != won
        state = (await trade.get(order.id)).state
        assert state == (ORDER_STATE_PAID if won else ORDER_STATE_CLOSED)

    await asyncio.gather(*(race(order) for order in orders))


async def test_orders_whose_time_has_passed_are_closed_together(trade: TradeKit) -> None:
    expiring = [await trade.create(trade.new_order(expires_in_seconds=60)) for _ in range(5)]
    paid = await trade.create(trade.new_order(expires_in_seconds=60))
    await trade.claim(paid.id, trade.new_payment_id())
    staying = await trade.create(trade.new_order(expires_in_seconds=3600))
    assert await close_due_orders(trade.parts) == 0
    trade.kit.clock.ahead += timedelta(minutes=2)
    rounds = await asyncio.gather(*(close_due_orders(trade.parts) for _ in range(3)))
    assert sum(rounds) == 6
    for order in expiring:
        assert (await trade.get(order.id)).state == ORDER_STATE_CLOSED
    assert sorted(trade.script.close_calls) == sorted(order.id for order in expiring)
    assert (await trade.get(paid.id)).state == ORDER_STATE_PAID
    assert (await trade.get(staying.id)).state == ORDER_STATE_CREATED
    assert await close_due_orders(trade.parts) == 0
