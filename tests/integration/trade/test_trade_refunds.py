"""Refunds: never more than was paid, ended once, and never forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from paymesh.payment.v1 import (
    PAYMENT_REFUND_STATE_FAILED,
    PAYMENT_REFUND_STATE_SUCCEEDED,
    PAYMENT_REFUND_STATE_WAITING_FUNDS,
    Failure,
    PaymentRefund,
    RefundFailed,
    RefundSucceeded,
    RefundWaiting,
)
from paymesh.trade.v1 import (
    REFUND_STATE_COMPLETED,
    REFUND_STATE_FAILED,
    REFUND_STATE_PROCESSING,
    REFUND_STATE_WAITING_FUNDS,
    Refund,
    RefundCompleted,
)
from paymesh.type.v1 import Money
from trade_kit import BUSINESS_DATE, TradeKit

from common.errors import Outcome, RemoteError, Retry, UnavailableError
from common.events.event import NewEvent
from services.trade.errors import RefundExceedsPaymentError
from services.trade.flows.create_refund import repeat_due_refunds


async def refusal(work: object) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await work  # type: ignore[misc]
    return caught.value


def news(trade: TradeKit, kind: str, refund: Refund) -> NewEvent:
    message = PaymentRefund(
        id=refund.id,
        amount=refund.amount,
        fee_returned_minor=2,
        business_date=BUSINESS_DATE,
        state={
            "succeeded": PAYMENT_REFUND_STATE_SUCCEEDED,
            "failed": PAYMENT_REFUND_STATE_FAILED,
            "waiting": PAYMENT_REFUND_STATE_WAITING_FUNDS,
        }[kind],
    )
    if kind == "failed":
        message.failure.CopyFrom(Failure(reason="DECLINED"))
    body = {"succeeded": RefundSucceeded, "failed": RefundFailed, "waiting": RefundWaiting}[kind](
        refund=message, order_id=refund.order_id
    )
    return trade.event(f"payment.refund.{kind}.v1", refund.id, body.SerializeToString())


async def test_a_refund_that_payment_works_on_ends_by_its_event(trade: TradeKit) -> None:
    order = await trade.completed(1200)
    refund = await trade.refund(trade.new_refund(order, 500))
    assert refund.state == REFUND_STATE_PROCESSING
    assert trade.script.refund_calls == [refund.id]
    done = news(trade, "succeeded", refund)
    await trade.hear(done)
    await trade.hear(done, news(trade, "waiting", refund))
    after = await trade.get_refund(refund.id)
    assert (after.state, after.fee_returned_minor) == (REFUND_STATE_COMPLETED, 2)
    assert (await trade.get(order.id)).refunded_minor == 500
    told = [
        event
        for event in await trade.kit.events("trade", "trade.refund.completed.v1")
        if event.aggregate_id == refund.id
    ]
    assert len(told) == 1
    assert RefundCompleted.FromString(told[0].payload).order.refunded_minor == 500
    assert told[0].biz_trace_id == order.biz_trace_id
    assert await trade.kit.rows("trade", "SELECT refund_id FROM open_refunds") == []
    assert await trade.history(refund.id) == [("", "PROCESSING"), ("PROCESSING", "COMPLETED")]


async def test_a_refund_that_payment_ends_at_once_is_completed_in_the_answer(
    trade: TradeKit,
) -> None:
    order = await trade.completed(1200)
    trade.script.refund_state = PAYMENT_REFUND_STATE_SUCCEEDED
    refund = await trade.refund(trade.new_refund(order, 1200))
    assert refund.state == REFUND_STATE_COMPLETED
    again = news(trade, "succeeded", refund)
    await trade.hear(again)
    assert (await trade.get(order.id)).refunded_minor == 1200


async def test_refunds_at_once_never_promise_more_than_was_paid(trade: TradeKit) -> None:
    order = await trade.completed(1000)
    answers = await asyncio.gather(
        *(trade.refund(trade.new_refund(order, 300)) for _ in range(10)), return_exceptions=True
    )
    refunds = [answer for answer in answers if isinstance(answer, Refund)]
    refused = [answer for answer in answers if isinstance(answer, RemoteError)]
    assert (len(refunds), len(refused)) == (3, 7)
    assert {error.remote_reason for error in refused} == {"REFUND_EXCEEDS_PAYMENT"}
    assert {error.metadata["refundable_minor"] for error in refused} == {"100"}
    rows = await trade.kit.rows("trade", "SELECT id FROM refunds WHERE order_id = $1", order.id)
    assert len(rows) == 3
    await trade.hear(
        news(trade, "succeeded", refunds[0]),
        news(trade, "failed", refunds[1]),
        news(trade, "succeeded", refunds[2]),
    )
    assert (await trade.get(order.id)).refunded_minor == 600
    # What the failed one had taken is free again.
    assert (await trade.refund(trade.new_refund(order, 400))).state == REFUND_STATE_PROCESSING


async def test_repeating_a_refund_gets_it_as_it_is_now(trade: TradeKit) -> None:
    order = await trade.completed()
    request = trade.new_refund(order, 100)
    refund = await trade.refund(request)
    await trade.hear(news(trade, "failed", refund))
    repeat = await trade.refund(request)
    assert (repeat.id, repeat.state) == (refund.id, REFUND_STATE_FAILED)
    assert repeat.failure_reason == "DECLINED"
    assert trade.script.refund_calls == [refund.id]


async def test_repeating_a_refund_with_other_content_names_the_field(trade: TradeKit) -> None:
    order = await trade.completed()
    request = trade.new_refund(order, 100)
    await trade.refund(request)
    request.amount.amount_minor = 101
    error = await refusal(trade.refund(request))
    assert (error.remote_reason, error.field) == ("ID_CONFLICT", "amount.amount_minor")
    request.amount.amount_minor = 100
    request.request_id = "another"
    error = await refusal(trade.refund(request))
    assert (error.remote_reason, error.field) == ("MERCHANT_NUMBER_USED", "request_id")


async def test_refunding_what_cannot_be_refunded_is_refused(trade: TradeKit) -> None:
    unpaid = await trade.create(trade.new_order())
    error = await refusal(trade.refund(trade.new_refund(unpaid, 100)))
    assert error.remote_reason == "ORDER_NOT_REFUNDABLE"
    free = await trade.create(trade.new_order(0))
    error = await refusal(trade.refund(trade.new_refund(free, 100)))
    assert error.remote_reason == "ORDER_NOT_REFUNDABLE"
    order = await trade.completed(1200)
    error = await refusal(trade.refund(trade.new_refund(order, 1201)))
    assert error.remote_reason == "REFUND_EXCEEDS_PAYMENT"
    euros = trade.new_refund(order, 1, amount=Money(currency_code="EUR", amount_minor=1))
    assert (await refusal(trade.refund(euros))).remote_reason == "CURRENCY_MISMATCH"
    zero = trade.new_refund(order, 0)
    assert (await refusal(trade.refund(zero))).remote_reason == "FIELD_INVALID"
    trade_of_another, trade.merchant_id = trade.merchant_id, trade.kit.ids.new("mer")
    error = await refusal(trade.refund(trade.new_refund(order, 1)))
    assert error.remote_reason == "NOT_FOUND"
    trade.merchant_id = trade_of_another
    assert trade.script.refund_calls == []


async def test_a_refund_that_payment_refuses_fails_with_its_reason(trade: TradeKit) -> None:
    order = await trade.completed()
    trade.script.refund_failure = RefundExceedsPaymentError(refundable_minor=1)
    refund = await trade.refund(trade.new_refund(order, 100))
    assert (refund.state, refund.failure_reason) == (REFUND_STATE_FAILED, "REFUND_EXCEEDS_PAYMENT")


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.NOT_EXECUTED])
async def test_a_refund_without_an_answer_is_asked_about_under_the_same_id(
    trade: TradeKit, outcome: Outcome
) -> None:
    order = await trade.completed()
    trade.script.refund_failure = UnavailableError(
        target="channel", outcome=outcome, retry=Retry.SAME_ID
    )
    refund = await trade.refund(trade.new_refund(order, 100))
    assert refund.state == REFUND_STATE_PROCESSING
    trade.script.refund_failure = None
    trade.script.refund_state = PAYMENT_REFUND_STATE_SUCCEEDED
    assert await repeat_due_refunds(trade.parts) == 0
    trade.kit.clock.ahead += timedelta(minutes=1)
    assert await repeat_due_refunds(trade.parts) == 1
    assert (await trade.get_refund(refund.id)).state == REFUND_STATE_COMPLETED
    assert set(trade.script.refund_calls) == {refund.id}
    assert await repeat_due_refunds(trade.parts) == 0


async def test_a_refund_that_waits_for_funds_is_told_and_ends_later(trade: TradeKit) -> None:
    order = await trade.completed()
    trade.script.refund_state = PAYMENT_REFUND_STATE_WAITING_FUNDS
    refund = await trade.refund(trade.new_refund(order, 100))
    assert refund.state == REFUND_STATE_WAITING_FUNDS
    await trade.hear(news(trade, "waiting", refund))
    told = await trade.kit.events("trade", "trade.refund.waiting.v1")
    assert [event.aggregate_id for event in told].count(refund.id) == 1
    await trade.hear(news(trade, "succeeded", refund))
    assert (await trade.get_refund(refund.id)).state == REFUND_STATE_COMPLETED


async def test_waiting_and_success_in_one_batch_end_in_success(trade: TradeKit) -> None:
    order = await trade.completed()
    refund = await trade.refund(trade.new_refund(order, 100))
    await trade.hear(news(trade, "waiting", refund), news(trade, "succeeded", refund))
    assert await trade.history(refund.id) == [
        ("", "PROCESSING"),
        ("PROCESSING", "WAITING_FUNDS"),
        ("WAITING_FUNDS", "COMPLETED"),
    ]


async def test_news_that_contradict_the_refund_are_parked(trade: TradeKit) -> None:
    order = await trade.completed()
    refund = await trade.refund(trade.new_refund(order, 100))
    await trade.hear(news(trade, "succeeded", refund))
    contrary = news(trade, "failed", refund)
    await trade.hear(contrary)
    assert (await trade.get_refund(refund.id)).state == REFUND_STATE_COMPLETED
    parked = await trade.kit.rows(
        "trade", "SELECT last_error FROM inbox_parked WHERE event_id = $1", contrary.event_id
    )
    assert "COMPLETED, not FAILED" in parked[0]["last_error"]
