"""Orders are made, claimed, completed and closed alike on PostgreSQL and on the model."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from common.context import Principal
from common.db.history import list_history
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from common.money import Money
from services.trade.domain import Claim, Completion, Order, OrderState
from services.trade.errors import ContradictionError
from tests.conformance.stores.trade_cases import IDS, START, TradeSide
from tests.conformance.stores.twins import Side

SCHEMA = "trade"


@pytest.fixture
def trade(side: Side) -> TradeSide:
    """Trade's stores on one side."""
    return TradeSide(side)


async def made(trade: TradeSide, *numbers: int) -> list[Order]:
    answers = await trade.orders.insert_orders([trade.order(number) for number in numbers])
    return [one.order for one in answers]


def completion(order: Order, payment_id: str, **changes: object) -> Completion:
    told = Completion(order.id, payment_id, order.amount, "2030-01-01", "evt_1")
    return replace(told, **changes)  # type: ignore[arg-type]


async def test_new_orders_are_written_with_their_history(trade: TradeSide) -> None:
    orders = [trade.order(1), trade.order(2, amount_minor=0, fee_minor=0)]
    orders[1] = replace(orders[1], state=OrderState.COMPLETED, business_date="2030-01-01")
    answers = await trade.orders.insert_orders(orders)
    assert [(one.order, one.is_new) for one in answers] == [(order, True) for order in orders]
    assert await trade.orders.find_orders([orders[1].id, "trd_no", orders[0].id]) == [
        orders[1],
        None,
        orders[0],
    ]
    rows = await trade.side.dump()
    assert [row["order_id"] for row in rows["open_orders"]] == [orders[0].id]
    assert sorted(row["to_state"] for row in rows["history"]) == ["COMPLETED", "CREATED"]
    assert [row["type"] for row in rows["outbox"]] == ["trade.order.completed.v1"]


async def test_a_request_or_number_that_is_taken_gets_what_holds_it(trade: TradeSide) -> None:
    first = (await made(trade, 1))[0]
    same_request = trade.order(2, request_id="request-1")
    same_number = trade.order(3, merchant_order_no="no-1")
    other_merchant = trade.order(4, request_id="request-1", merchant_id="mer_2")
    answers = await trade.orders.insert_orders([same_request, same_number, other_merchant])
    assert [(one.order.id, one.is_new, one.holds_request) for one in answers] == [
        (first.id, False, True),
        (first.id, False, False),
        (other_merchant.id, True, True),
    ]


async def test_two_of_one_request_in_a_batch_become_one_order(trade: TradeSide) -> None:
    orders = [trade.order(1), trade.order(2, request_id="request-1", merchant_order_no="no-1")]
    answers = await trade.orders.insert_orders(orders)
    assert [(one.order.id, one.is_new, one.holds_request) for one in answers] == [
        (orders[0].id, True, True),
        (orders[0].id, False, True),
    ]


async def test_writing_again_after_a_lost_answer_finds_its_own(trade: TradeSide) -> None:
    order = trade.order(1)
    await trade.orders.insert_orders([order])
    answers = await trade.orders.insert_orders([order])
    assert [(one.order, one.is_new) for one in answers] == [(order, True)]


async def test_lists_are_pages_from_the_newest_on(trade: TradeSide) -> None:
    orders = sorted(await made(trade, *range(5)), key=lambda one: one.id, reverse=True)
    await trade.orders.insert_orders([trade.order(9, merchant_id="mer_2")])
    first = await trade.orders.list_orders("mer_1", "default", "TEST", "", "", 2)
    rest = await trade.orders.list_orders("mer_1", "default", "TEST", first[-1].id, "", 9)
    assert [*first, *rest] == orders
    named = await trade.orders.list_orders("mer_1", "default", "TEST", "", "no-3", 9)
    assert [one.merchant_order_no for one in named] == ["no-3"]
    assert await trade.orders.list_orders("mer_1", "default", "LIVE", "", "", 9) == []


async def test_an_order_is_won_once(trade: TradeSide) -> None:
    orders = await made(trade, 1, 2)
    claims = [
        Claim(orders[0].id, "pay_1"),
        Claim(orders[0].id, "pay_2"),
        Claim(orders[1].id, "pay_3"),
        Claim("trd_no", "pay_4"),
    ]
    won = await trade.orders.claim_orders(claims)
    assert [one and (one.payment_id, one.state, one.version) for one in won] == [
        ("pay_1", OrderState.PAID, 2),
        ("pay_1", OrderState.PAID, 2),
        ("pay_3", OrderState.PAID, 2),
        None,
    ]
    again = await trade.orders.claim_orders([Claim(orders[0].id, "pay_2")])
    assert again[0] is not None
    assert (again[0].payment_id, again[0].version) == ("pay_1", 2)
    async with trade.pool.acquire() as connection:
        history = await list_history(connection, "order", orders[0].id)
    assert [(row.to_state, row.reason) for row in history] == [
        ("CREATED", ""),
        ("PAID", "won by pay_1"),
    ]


async def test_an_order_that_is_closing_can_be_won_and_a_closed_one_cannot(
    trade: TradeSide,
) -> None:
    orders = await made(trade, 1, 2)
    ids = [order.id for order in orders]
    await trade.orders.begin_closing(ids, "SERVICE:trade", "expired")
    await trade.orders.claim_orders([Claim(ids[0], "pay_1")])
    await trade.orders.finish_closing(ids, "expired")
    late = await trade.orders.claim_orders([Claim(ids[1], "pay_2")])
    assert late[0] is not None
    assert (late[0].state, late[0].payment_id) == (OrderState.CLOSED, "")
    rows = await trade.side.dump()
    assert [row["order_id"] for row in rows["open_orders"]] == [ids[0]]
    assert [row["type"] for row in rows["outbox"]] == ["trade.order.closed.v1"]


async def test_a_booked_payment_completes_its_order_claimed_or_not(trade: TradeSide) -> None:
    orders = await made(trade, 1, 2)
    await trade.orders.claim_orders([Claim(orders[0].id, "pay_1")])
    booked = [completion(orders[0], "pay_1"), completion(orders[1], "pay_2")]
    for expected in (2, 0):
        async with trade.pool.transaction() as connection:
            assert await trade.orders.complete_in(connection, booked) == expected
    found = await trade.orders.find_orders([order.id for order in orders])
    assert [one and (one.state, one.version, one.business_date) for one in found] == [
        (OrderState.COMPLETED, 3, "2030-01-01")
    ] * 2
    rows = await trade.side.dump()
    assert rows["open_orders"] == []
    assert [row["type"] for row in rows["outbox"]] == ["trade.order.completed.v1"] * 2


@pytest.mark.parametrize(
    ("payment_id", "amount"), [("pay_2", 1000), ("pay_1", 999)], ids=["another", "less"]
)
async def test_a_contradicting_completion_undoes_its_whole_batch(
    trade: TradeSide, payment_id: str, amount: int
) -> None:
    orders = await made(trade, 1, 2)
    await trade.orders.claim_orders([Claim(one.id, "pay_1") for one in orders])
    wrong = completion(orders[1], payment_id, amount=Money("USD", amount))
    before = await trade.side.dump()

    async def complete() -> None:
        async with trade.pool.transaction() as connection:
            await trade.orders.complete_in(connection, [completion(orders[0], "pay_1"), wrong])

    with pytest.raises(ContradictionError):
        await complete()
    assert await trade.side.dump() == before


async def test_due_orders_are_taken_by_their_time_and_put_off(trade: TradeSide) -> None:
    orders = await made(trade, 1, 2, 3)
    ids = [order.id for order in orders]
    assert await trade.orders.take_due(START + timedelta(days=1), 9) == []
    trade.clock.at = orders[1].expires_at
    until = trade.clock.at + timedelta(seconds=60)
    assert await trade.orders.take_due(until, 1) == [(ids[0], 1)]
    assert await trade.orders.take_due(until, 9) == [(ids[1], 1)]
    assert await trade.orders.take_due(until, 9) == []
    await trade.orders.put_off([(ids[1], trade.clock.at), ("trd_no", trade.clock.at)])
    assert await trade.orders.take_due(until, 9) == [(ids[1], 2)]


async def test_the_business_date_only_moves_forward(trade: TradeSide) -> None:
    assert await trade.orders.find_business_date("default", "TEST") == ""
    for date in ("2030-01-02", "2030-01-01"):
        await trade.orders.keep_business_date("default", "TEST", date)
    assert await trade.orders.find_business_date("default", "TEST") == "2030-01-02"
    assert await trade.orders.find_business_date("default", "LIVE") == ""


async def test_facts_are_pages_in_the_order_of_ids(trade: TradeSide) -> None:
    orders = sorted(await made(trade, 1, 2, 3), key=lambda one: one.id)
    await trade.orders.claim_orders([Claim(orders[0].id, "pay_1")])
    job = NewJob(IDS.new("job"), "ask", "k", START, Principal(mode="TEST"))  # type: ignore[arg-type]
    async with trade.pool.transaction() as connection:
        await Jobs().add(connection, [job])
    first = await trade.facts.list_facts("order", "default", "TEST", "", 2)
    rest = await trade.facts.list_facts("order", "default", "TEST", first[-1]["key"], 9)
    assert [row["key"] for row in (*first, *rest)] == [order.id for order in orders]
    assert first[0]["facts"]["amount_minor"] == "1000"
    assert first[0]["facts"]["payment_id"] == "pay_1"
    unfinished = await trade.facts.list_facts("unfinished", "default", "TEST", "", 9)
    assert [(row["key"], row["facts"]["state"]) for row in unfinished] == [
        (job.job_id, "OPEN"),
        (orders[0].id, "PAID"),
        (orders[1].id, "CREATED"),
        (orders[2].id, "CREATED"),
    ]
