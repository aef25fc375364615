"""Refunds are asked for under their order's cap and settled alike on both sides."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from common.money import Money
from services.trade.domain import Claim, Completion, Order, Refund, RefundNews, RefundState
from services.trade.errors import ContradictionError, RefundExceedsPaymentError
from tests.conformance.stores.trade_cases import START, TradeSide
from tests.conformance.stores.twins import Side

SCHEMA = "trade"
AGAIN_AT = START + timedelta(seconds=5)


@pytest.fixture
def trade(side: Side) -> TradeSide:
    """Trade's stores on one side."""
    return TradeSide(side)


async def completed(trade: TradeSide, number: int = 1) -> Order:
    order = trade.order(number)
    await trade.orders.insert_orders([order])
    await trade.orders.claim_orders([Claim(order.id, "pay_1")])
    async with trade.pool.transaction() as connection:
        booked = Completion(order.id, "pay_1", order.amount, "2030-01-01", "evt_1")
        await trade.orders.complete_in(connection, [booked])
    found = (await trade.orders.find_orders([order.id]))[0]
    assert found is not None
    return found


async def remaining(trade: TradeSide, order: Order) -> tuple[int, int, int]:
    found = (await trade.orders.find_orders([order.id]))[0]
    assert found is not None
    return found.refunded_minor, found.refunding_minor, found.refundable_minor


def news(refund: Refund, told_state: RefundState, **changes: object) -> RefundNews:
    told = RefundNews(
        refund.id, told_state, refund.amount, 1, cause="evt_2", business_date="2030-01-02"
    )
    return replace(told, **changes)  # type: ignore[arg-type]


async def test_a_refund_takes_its_part_and_a_repeat_finds_it(trade: TradeSide) -> None:
    order = await completed(trade)
    refund = trade.refund(1, order)
    assert await trade.refunds.insert_refund(refund, AGAIN_AT) is None
    again = trade.refund(2, order, request_id="refund-1")
    same_number = trade.refund(3, order, merchant_refund_no="rno-1")
    assert await trade.refunds.insert_refund(again, AGAIN_AT) == refund
    assert await trade.refunds.insert_refund(same_number, AGAIN_AT) == refund
    assert await remaining(trade, order) == (0, 100, 900)
    assert await trade.refunds.find_refunds([refund.id, "rfd_no"]) == [refund, None]


async def test_refunds_together_never_exceed_the_order(trade: TradeSide) -> None:
    order = await completed(trade)
    await trade.refunds.insert_refund(trade.refund(1, order, amount_minor=700), AGAIN_AT)
    with pytest.raises(RefundExceedsPaymentError) as caught:
        await trade.refunds.insert_refund(trade.refund(2, order, amount_minor=301), AGAIN_AT)
    assert caught.value.metadata["refundable_minor"] == "300"
    assert await trade.refunds.find_refunds([trade.refund_id(2)]) == [None]
    outcomes = await asyncio.gather(
        *(
            trade.refunds.insert_refund(trade.refund(n, order, amount_minor=150), AGAIN_AT)
            for n in range(3, 8)
        ),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in outcomes].count("NoneType") == 2
    assert await remaining(trade, order) == (0, 1000, 0)


async def test_an_order_that_is_not_completed_gives_nothing_back(trade: TradeSide) -> None:
    order = trade.order(1)
    await trade.orders.insert_orders([order])
    with pytest.raises(RefundExceedsPaymentError):
        await trade.refunds.insert_refund(trade.refund(1, order), AGAIN_AT)


async def test_news_end_refunds_once_and_fold_into_the_order(trade: TradeSide) -> None:
    order = await completed(trade)
    refunds = [trade.refund(n, order) for n in range(3)]
    for refund in refunds:
        await trade.refunds.insert_refund(refund, AGAIN_AT)
    told = [
        news(refunds[0], RefundState.COMPLETED),
        news(refunds[1], RefundState.FAILED, failure_reason="DECLINED"),
        news(refunds[2], RefundState.WAITING_FUNDS),
        news(refunds[2], RefundState.COMPLETED),
    ]
    for _ in range(2):
        await trade.refunds.settle(told)
    found = await trade.refunds.find_refunds([one.id for one in refunds])
    assert [one and (one.state, one.version) for one in found] == [
        (RefundState.COMPLETED, 2),
        (RefundState.FAILED, 2),
        (RefundState.COMPLETED, 3),
    ]
    assert await remaining(trade, order) == (200, 0, 800)
    rows = await trade.side.dump()
    assert rows["open_refunds"] == []
    assert sorted(row["type"] for row in rows["outbox"])[1:] == [
        "trade.refund.completed.v1",
        "trade.refund.completed.v1",
        "trade.refund.failed.v1",
        "trade.refund.waiting.v1",
    ]


async def test_waiting_for_funds_is_told_once(trade: TradeSide) -> None:
    order = await completed(trade)
    refund = trade.refund(1, order)
    await trade.refunds.insert_refund(refund, AGAIN_AT)
    for _ in range(2):
        await trade.refunds.settle([news(refund, RefundState.WAITING_FUNDS)])
    (found,) = await trade.refunds.find_refunds([refund.id])
    assert found is not None
    assert (found.state, found.version) == (RefundState.WAITING_FUNDS, 2)
    assert await remaining(trade, order) == (0, 100, 900)


@pytest.mark.parametrize(
    "changes",
    [
        {"refund_id": "rfd_no"},
        {"amount": Money("USD", 99)},
        {"state": RefundState.FAILED},
    ],
    ids=["unknown", "amount", "other end"],
)
async def test_news_that_contradict_undo_their_whole_batch(
    trade: TradeSide, changes: dict[str, object]
) -> None:
    order = await completed(trade)
    refunds = [trade.refund(n, order) for n in range(2)]
    for refund in refunds:
        await trade.refunds.insert_refund(refund, AGAIN_AT)
    await trade.refunds.settle([news(refunds[1], RefundState.COMPLETED)])
    before = await trade.side.dump()
    wrong = news(refunds[1], RefundState.COMPLETED, **changes)
    with pytest.raises(ContradictionError):
        await trade.refunds.settle([news(refunds[0], RefundState.COMPLETED), wrong])
    assert await trade.side.dump() == before


async def test_due_refunds_are_taken_and_put_off(trade: TradeSide) -> None:
    order = await completed(trade)
    await trade.refunds.insert_refund(trade.refund(1, order), AGAIN_AT)
    await trade.refunds.insert_refund(trade.refund(2, order), AGAIN_AT + timedelta(seconds=1))
    trade.clock.at = AGAIN_AT + timedelta(seconds=1)
    until = trade.clock.at + timedelta(seconds=10)
    first = await trade.refunds.take_due(until, 1)
    assert first == [(trade.refund_id(1), 1)]
    assert await trade.refunds.take_due(until, 9) == [(trade.refund_id(2), 1)]
    await trade.refunds.put_off([(trade.refund_id(1), trade.clock.at)])
    assert await trade.refunds.take_due(until, 9) == [(trade.refund_id(1), 2)]


async def test_facts_of_refunds_are_pages(trade: TradeSide) -> None:
    order = await completed(trade)
    for number in (1, 2):
        await trade.refunds.insert_refund(trade.refund(number, order), AGAIN_AT)
    facts = await trade.facts.list_facts("refund", "default", "TEST", "", 1)
    facts = [*facts, *await trade.facts.list_facts("refund", "default", "TEST", facts[0]["key"], 9)]
    assert [row["key"] for row in facts] == sorted(map(trade.refund_id, (1, 2)))
    assert facts[0]["facts"]["order_id"] == order.id
