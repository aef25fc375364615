"""States as data, prices, repeats, and fee plans that are asked for once."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.db.queries import load_queries
from common.errors import AmountOutOfRangeError, CurrencyUnknownError
from services.trade.domain import (
    ORDER_MOVES,
    FeePlan,
    Order,
    OrderState,
    check_amount,
    complete_at_once,
    differing_field,
    price,
)
from services.trade.fee_plans import FeePlans, QuotedPlan

NOW = datetime(1997, 1, 2, tzinfo=UTC)
ORDER = Order(
    id="trd_1",
    tenant_id="default",
    mode="TEST",
    merchant_id="mer_1",
    actor="MERCHANT:key_1",
    request_id="r",
    merchant_order_no="n",
    type="purchase",
    state=OrderState.CREATED,
    version=1,
    currency_code="USD",
    amount_minor=1250,
    fee_minor=0,
    fee_rate_ppm=0,
    fee_returned_on_refund=False,
    user_id="",
    subject="",
    payment_id="",
    refunded_minor=0,
    refunding_minor=0,
    biz_trace_id="biz_1",
    metadata={},
    expires_in_seconds=0,
    business_date="",
    expires_at=NOW + timedelta(hours=2),
    created_at=NOW,
    updated_at=NOW,
)


def test_moves_in_sql_are_the_moves_of_the_table() -> None:
    """The statements compare and set by themselves, so they must say what the table says."""
    queries = load_queries("services.trade")
    sources = {
        "claim_orders": OrderState.PAID,
        "complete_orders": OrderState.COMPLETED,
        "begin_closing": OrderState.CLOSING,
        "finish_closing": OrderState.CLOSED,
    }
    for name, target in sources.items():
        condition = queries[name].split("WHERE")[-1].split("RETURNING")[0]
        allowed = {state.value for state, moves in ORDER_MOVES.items() if target in moves}
        assert set(re.findall(r"'(\w+)'", condition)) == allowed


@given(st.integers(0, 10**15), st.integers(0, 1_000_000))
def test_pricing_takes_a_fee_between_nothing_and_all(amount: int, rate: int) -> None:
    priced = price(replace(ORDER, amount_minor=amount), FeePlan(rate, returned_on_refund=True))
    assert 0 <= priced.fee_minor <= amount
    assert abs(priced.fee_minor * 1_000_000 - amount * rate) <= 500_000
    assert priced.fee_rate_ppm == rate


def test_only_an_order_for_nothing_completes_at_once() -> None:
    done = complete_at_once(replace(ORDER, amount_minor=0), "1997-01-02")
    assert (done.state, done.business_date) == (OrderState.COMPLETED, "1997-01-02")
    with pytest.raises(ValueError):
        complete_at_once(ORDER, "1997-01-02")


@pytest.mark.parametrize("amount", [-1, 0, 10**15 + 1])
def test_checking_an_impossible_amount_is_refused(amount: int) -> None:
    with pytest.raises(AmountOutOfRangeError):
        check_amount("USD", amount, may_be_zero=False)


@pytest.mark.parametrize("code", ["ABC", "XXX", "usd", ""])
def test_checking_an_unknown_currency_is_refused(code: str) -> None:
    with pytest.raises(CurrencyUnknownError):
        check_amount(code, 1, may_be_zero=True)


def test_repeats_differ_only_in_what_the_caller_said() -> None:
    chosen = replace(ORDER, id="trd_2", fee_minor=9, biz_trace_id="biz_2", created_at=NOW)
    assert differing_field(chosen, ORDER, names_story=False) is None
    assert differing_field(chosen, ORDER, names_story=True) == "biz_trace_id"


class StandingClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the time."""
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds


async def test_plans_are_asked_for_once_and_kept_for_their_time() -> None:
    clock, asked = StandingClock(), []

    async def ask(merchant_id: str) -> QuotedPlan:
        asked.append(merchant_id)
        await asyncio.sleep(0)
        return QuotedPlan(FeePlan(len(asked), returned_on_refund=True), 60)

    plans = FeePlans(ask, clock, plans_max=2)
    found = await asyncio.gather(*(plans.find("default", "TEST", "mer_1") for _ in range(20)))
    assert {plan.rate_ppm for plan in found} == {1}
    clock.seconds = 59
    assert (await plans.find("default", "TEST", "mer_1")).rate_ppm == 1
    clock.seconds = 61
    assert (await plans.find("default", "TEST", "mer_1")).rate_ppm == 2
    for merchant in ("mer_2", "mer_3", "mer_1"):
        await plans.find("default", "TEST", merchant)
    assert asked == ["mer_1", "mer_1", "mer_2", "mer_3", "mer_1"]


async def test_a_failed_question_fails_all_who_wait_and_is_asked_again() -> None:
    answers = [OSError("away"), QuotedPlan(FeePlan(1, returned_on_refund=True), 60)]

    async def ask(_: str) -> QuotedPlan:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    plans = FeePlans(ask, StandingClock(), plans_max=2)
    failed = await asyncio.gather(
        *(plans.find("default", "TEST", "mer_1") for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(one, OSError) for one in failed)
    assert (await plans.find("default", "TEST", "mer_1")).rate_ppm == 1
