"""Orders: made once, claimed by one payment, completed by its event."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hosted_services import merchant_call, operator_call
from paymesh.trade.v1 import (
    ORDER_STATE_COMPLETED,
    ORDER_STATE_CREATED,
    ORDER_STATE_PAID,
    ClaimOrderRequest,
    GetOrderRequest,
    ListFactsRequest,
    ListOrdersRequest,
    ListStoryRequest,
)
from paymesh.type.v1 import Money
from trade_kit import BUSINESS_DATE, NOBODY, TradeKit

from common.context import bound
from common.errors import RemoteError
from services.trade.domain import Claim


async def refusal(work: object) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await work  # type: ignore[misc]
    return caught.value


async def test_creating_an_order_prices_it_by_the_plan(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order(1250))
    assert order.state == ORDER_STATE_CREATED
    assert (order.fee.fee_minor, order.fee.rate_ppm) == (8, 6000)
    assert order.type == "purchase"
    assert dict(order.metadata) == {"shelf": "7"}
    assert order.expires_at.seconds - order.created_at.seconds == 7200
    assert await trade.get(order.id) == order
    assert await trade.history(order.id) == [("", "CREATED")]


async def test_repeating_a_request_gets_the_first_answer(trade: TradeKit) -> None:
    request = trade.new_order()
    first = await trade.create(request)
    repeats = await asyncio.gather(*(trade.create(request) for _ in range(8)))
    assert {order.id for order in repeats} == {first.id}


async def test_copies_of_a_request_at_once_make_one_order(trade: TradeKit) -> None:
    request = trade.new_order()
    copies = await asyncio.gather(*(trade.create(request) for _ in range(20)))
    assert len({order.id for order in copies}) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"merchant_order_no": "another"}, "merchant_order_no"),
        ({"amount": Money(currency_code="EUR", amount_minor=1200)}, "amount.currency_code"),
        ({"amount": Money(currency_code="USD", amount_minor=1201)}, "amount.amount_minor"),
        ({"subject": "three records"}, "subject"),
        ({"user_id": f"usr_{'0' * 26}"}, "user_id"),
        ({"metadata": {"shelf": "8"}}, "metadata"),
        ({"expires_in_seconds": 60}, "expires_in_seconds"),
        ({"biz_trace_id": "mine"}, "biz_trace_id"),
    ],
)
async def test_repeating_a_request_with_other_content_names_the_field(
    trade: TradeKit, change: dict[str, object], field: str
) -> None:
    request = trade.new_order()
    first = await trade.create(request)
    other = trade.new_order(**{"request_id": request.request_id} | change)
    if "merchant_order_no" not in change:
        other.merchant_order_no = request.merchant_order_no
    error = await refusal(trade.create(other))
    assert (error.remote_reason, error.field) == ("ID_CONFLICT", field)
    assert await trade.get(first.id) == first


async def test_using_a_number_again_is_refused_even_with_the_same_content(
    trade: TradeKit,
) -> None:
    request = trade.new_order()
    await trade.create(request)
    request.request_id = "another"
    error = await refusal(trade.create(request))
    assert (error.remote_reason, error.field) == ("MERCHANT_NUMBER_USED", "request_id")
    request.amount.amount_minor = 5
    error = await refusal(trade.create(request))
    assert (error.remote_reason, error.field) == ("MERCHANT_NUMBER_USED", "amount.amount_minor")


async def test_another_merchant_may_use_the_same_number(trade: TradeKit) -> None:
    request = trade.new_order()
    first = await trade.create(request)
    trade.merchant_id = trade.kit.ids.new("mer")
    second = await trade.create(request)
    assert second.id != first.id
    assert (await refusal(trade.get(first.id))).remote_reason == "NOT_FOUND"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": Money(currency_code="ABC", amount_minor=1)}, "CURRENCY_UNKNOWN"),
        ({"amount": Money(currency_code="USD", amount_minor=-1)}, "FIELD_INVALID"),
        ({"amount": Money(currency_code="USD", amount_minor=10**15 + 1)}, "FIELD_INVALID"),
        ({"type": "gift"}, "FIELD_INVALID"),
        ({"type": "recharge"}, "FIELD_INVALID"),
        (
            {
                "type": "recharge",
                "user_id": f"usr_{'0' * 26}",
                "amount": Money(currency_code="USD"),
            },
            "AMOUNT_OUT_OF_RANGE",
        ),
        ({"user_id": NOBODY}, "NOT_FOUND"),
        (
            {
                "type": "recharge",
                "user_id": f"usr_{'0' * 26}",
                "amount": Money(currency_code="EUR", amount_minor=1),
            },
            "NOT_FOUND",
        ),
    ],
)
async def test_creating_an_impossible_order_is_refused_and_leaves_nothing(
    trade: TradeKit, change: dict[str, object], reason: str
) -> None:
    error = await refusal(trade.create(trade.new_order(**change)))
    assert error.remote_reason == reason
    rows = await trade.kit.rows(
        "trade", "SELECT id FROM orders WHERE merchant_id = $1", trade.merchant_id
    )
    assert rows == []


async def test_recharging_costs_no_fee(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order(type="recharge", user_id=f"usr_{'0' * 26}"))
    assert (order.fee.fee_minor, order.fee.rate_ppm) == (0, 0)


async def test_an_order_for_nothing_completes_at_once_on_the_ledgers_date(
    trade: TradeKit,
) -> None:
    order = await trade.create(trade.new_order(0))
    assert order.state == ORDER_STATE_COMPLETED
    assert order.business_date == BUSINESS_DATE
    assert await trade.history(order.id) == [("", "COMPLETED")]
    events = await trade.kit.events("trade", "trade.order.completed.v1")
    assert [event.aggregate_id for event in events].count(order.id) == 1
    assert not await trade.claim(order.id, trade.new_payment_id())


async def test_many_payments_claiming_one_order_have_one_winner_for_ever(
    trade: TradeKit,
) -> None:
    order = await trade.create(trade.new_order())
    payments = [trade.new_payment_id() for _ in range(30)]
    won = await asyncio.gather(*(trade.claim(order.id, payment) for payment in payments))
    assert won.count(True) == 1
    winner = payments[won.index(True)]
    # The losers first: who comes first in a batch would win an order that anyone could win again.
    losers_first = sorted(payments, key=lambda payment: payment == winner)
    again = await asyncio.gather(*(trade.claim(order.id, payment) for payment in losers_first))
    assert again == [payment == winner for payment in losers_first]
    order = await trade.get(order.id)
    assert (order.state, order.payment_id) == (ORDER_STATE_PAID, winner)


async def test_claiming_by_two_processes_has_one_winner(trade: TradeKit) -> None:
    """Two stores, as two processes have them, share nothing but the database."""
    orders = await asyncio.gather(*(trade.create(trade.new_order()) for _ in range(40)))
    batches = [[Claim(order.id, trade.new_payment_id()) for order in orders] for _ in range(4)]
    # Half of them in the other order, so that they would meet in deadlocks if locks had none.
    batches = [batch if i % 2 else batch[::-1] for i, batch in enumerate(batches)]
    rounds = await asyncio.gather(*(trade.parts.orders.claim_orders(one) for one in batches))
    wins: dict[str, set[str]] = {}
    for batch, answers in zip(batches, rounds, strict=True):
        for claim, after in zip(batch, answers, strict=True):
            assert after is not None
            wins.setdefault(claim.order_id, set()).add(after.payment_id)
    assert all(len(winners) == 1 for winners in wins.values())


async def test_claiming_an_expired_order_that_is_open_wins(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order(expires_in_seconds=60))
    trade.kit.clock.ahead += timedelta(hours=1)
    assert await trade.claim(order.id, trade.new_payment_id())


async def test_claiming_an_unknown_order_is_refused(trade: TradeKit) -> None:
    error = await refusal(trade.claim(trade.kit.ids.new("trd"), trade.new_payment_id()))
    assert error.remote_reason == "NOT_FOUND"


async def test_a_booked_payment_completes_its_order_once(trade: TradeKit) -> None:
    orders = await asyncio.gather(*(trade.create(trade.new_order()) for _ in range(10)))
    payments = [trade.new_payment_id() for _ in orders]
    await asyncio.gather(
        *(trade.claim(order.id, payment) for order, payment in zip(orders, payments, strict=True))
    )
    events = [
        trade.succeeded(order, payment) for order, payment in zip(orders, payments, strict=True)
    ]
    await trade.hear(*events, *events[:3])
    await trade.hear(*events[5:])
    told = [one.aggregate_id for one in await trade.kit.events("trade", "trade.order.completed.v1")]
    for order in orders:
        after = await trade.get(order.id)
        assert (after.state, after.business_date) == (ORDER_STATE_COMPLETED, BUSINESS_DATE)
        assert await trade.history(order.id) == [
            ("", "CREATED"),
            ("CREATED", "PAID"),
            ("PAID", "COMPLETED"),
        ]
        assert told.count(order.id) == 1
    open_ones = await trade.kit.rows("trade", "SELECT order_id FROM open_orders")
    assert open_ones == []


async def test_a_booked_payment_that_was_never_claimed_claims_on_the_way(
    trade: TradeKit,
) -> None:
    order = await trade.create(trade.new_order())
    await trade.hear(trade.succeeded(order, trade.new_payment_id()))
    assert (await trade.get(order.id)).state == ORDER_STATE_COMPLETED


async def test_a_payment_that_did_not_win_is_parked_and_changes_nothing(trade: TradeKit) -> None:
    good, other = await trade.create(trade.new_order()), await trade.create(trade.new_order())
    winner = trade.new_payment_id()
    await trade.claim(good.id, winner)
    claimed = trade.new_payment_id()
    await trade.claim(other.id, claimed)
    wrong = trade.succeeded(other, trade.new_payment_id())
    short = trade.succeeded(other, claimed, amount=Money(currency_code="USD", amount_minor=1))
    await trade.hear(wrong, short, trade.succeeded(good, winner))
    assert (await trade.get(good.id)).state == ORDER_STATE_COMPLETED
    assert (await trade.get(other.id)).state == ORDER_STATE_PAID
    parked = await trade.kit.rows("trade", "SELECT event_id, last_error FROM inbox_parked")
    reasons = {row["event_id"]: row["last_error"] for row in parked}
    assert claimed in reasons[wrong.event_id]
    assert "USD 0.01" in reasons[short.event_id]


async def test_listing_orders_pages_newest_first(trade: TradeKit) -> None:
    made = [await trade.create(trade.new_order()) for _ in range(5)]
    seen: list[str] = []
    token = ""
    with bound(trade.call):
        while True:
            page = await trade.edge.ListOrders(ListOrdersRequest(page_size=2, page_token=token))
            seen += [order.id for order in page.orders]
            token = page.next_page_token
            if not token:
                break
        one = await trade.edge.ListOrders(
            ListOrdersRequest(merchant_order_no=made[2].merchant_order_no)
        )
    assert seen == sorted((order.id for order in made), reverse=True)
    assert [order.id for order in one.orders] == [made[2].id]
    with bound(merchant_call(trade.kit.ids.new("mer"))):
        assert not (await trade.edge.ListOrders(ListOrdersRequest())).orders


async def test_claiming_as_anyone_but_payment_is_refused(trade: TradeKit) -> None:
    order = await trade.create(trade.new_order())
    with bound(trade.call):
        error = await refusal(
            trade.edge.ClaimOrder(
                ClaimOrderRequest(order_id=order.id, payment_id=trade.new_payment_id())
            )
        )
    assert error.remote_reason == "PERMISSION_DENIED"


async def test_story_and_facts_tell_of_an_order(trade: TradeKit) -> None:
    order = await trade.completed()
    open_one = await trade.create(trade.new_order())
    with bound(operator_call("operator")):
        for request in (
            ListStoryRequest(biz_trace_id=order.biz_trace_id),
            ListStoryRequest(subject_id=order.id),
            ListStoryRequest(subject_id=order.merchant_order_no),
        ):
            story = await trade.operator.ListStory(request)
            assert story.biz_trace_id == order.biz_trace_id
            assert [item.summary for item in story.items if item.kind == "state"] == [
                "CREATED",
                "CREATED → PAID",
                "PAID → COMPLETED",
            ]
        page = await trade.operator.ListStory(
            ListStoryRequest(biz_trace_id=order.biz_trace_id, page_size=2)
        )
        rest = await trade.operator.ListStory(
            ListStoryRequest(
                biz_trace_id=order.biz_trace_id, page_token=page.next_page_token, page_size=100
            )
        )
        assert len(page.items) == 2
        assert [*page.items, *rest.items] == list(story.items)
        facts = {}
        token = ""
        while True:
            answer = await trade.operator.ListFacts(
                ListFactsRequest(kind="order", page_size=7, page_token=token)
            )
            facts |= {fact.key: dict(fact.values) for fact in answer.facts}
            token = answer.next_page_token
            if not token:
                break
        assert facts[order.id]["payment_id"] == order.payment_id
        unfinished = await trade.operator.ListFacts(ListFactsRequest(kind="unfinished"))
        nouns = {fact.key: dict(fact.values) for fact in unfinished.facts}
        assert nouns[open_one.id] == {"noun": "order", "state": "CREATED"}
        assert order.id not in nouns
        assert any(values["noun"] == "event" for values in nouns.values())
        nothing = await trade.operator.ListStory(ListStoryRequest(subject_id="nothing"))
        assert nothing.biz_trace_id == ""
    with bound(trade.call):
        error = await refusal(trade.edge.ListFacts(ListFactsRequest(kind="order")))
    assert error.remote_reason == "PERMISSION_DENIED"
    with bound(trade.call):
        assert (await trade.edge.GetOrder(GetOrderRequest(order_id=order.id))).order == order
