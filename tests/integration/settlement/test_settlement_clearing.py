"""Clearing: one entry per payment and refund, which adds up, or none at all."""

from __future__ import annotations

import asyncpg
import pytest
from hosted_services import merchant_call, operator_call
from paymesh.settlement.v1 import (
    ListClearingTotalsRequest,
    ListFactsRequest,
    ListStoryRequest,
)
from settlement_kit import DAY, SettlementKit

from common.context import bound
from common.errors import RemoteError


async def test_payments_and_refunds_become_entries_that_add_up(
    settlement: SettlementKit,
) -> None:
    first, second = settlement.paid(1250), settlement.paid(10_000)
    await settlement.hear(first, second, settlement.given_back(second.aggregate_id, 5_000, 30))
    assert await settlement.entries() == [
        ("PAYMENT", 1250, 8, 1242),
        ("PAYMENT", 10_000, 60, 9_940),
        ("REFUND", -5_000, -30, -4_970),
    ]
    with bound(merchant_call(settlement.merchant_id)):
        answer = await settlement.edge.ListClearingTotals(
            ListClearingTotalsRequest(merchant_id=settlement.merchant_id, from_on=DAY, until_on=DAY)
        )
    (total,) = answer.totals
    assert (total.payments, total.refunds) == (2, 1)
    assert (total.paid_minor, total.refunded_minor) == (11_250, 5_000)
    assert (total.fees_minor, total.net_minor) == (38, 6_212)
    assert total.net_minor == total.paid_minor - total.refunded_minor - total.fees_minor


async def test_hearing_the_same_movement_again_changes_nothing(
    settlement: SettlementKit,
) -> None:
    """Also when it is told by another event, as after a failover of the teller."""
    paid = settlement.paid(1250)
    again = settlement.paid(1250, id=paid.aggregate_id)
    await settlement.hear(paid, paid)
    await settlement.hear(paid)
    await settlement.hear(again)
    assert await settlement.entries() == [("PAYMENT", 1250, 8, 1242)]
    assert await settlement.parked(again) == ""


async def test_movements_that_do_not_add_up_are_parked_and_hold_nobody_up(
    settlement: SettlementKit,
) -> None:
    good = settlement.paid(1250)
    wrong = [
        settlement.paid(1250, net_minor=1243),
        settlement.paid(1250, fee_minor=1251, net_minor=-1),
        settlement.paid(1250, business_date=""),
    ]
    await settlement.hear(*wrong, good)
    assert await settlement.entries() == [("PAYMENT", 1250, 8, 1242)]
    reasons = [await settlement.parked(event) for event in wrong]
    assert "net 1243 is not gross 1250 less fee 8" in reasons[0]
    assert "fee 1251" in reasons[1]
    assert "without a business date" in reasons[2]
    with bound(operator_call("operator")):
        answer = await settlement.operator.ListFacts(ListFactsRequest(kind="unfinished"))
    unfinished = {fact.key: dict(fact.values) for fact in answer.facts}
    assert unfinished[wrong[0].event_id]["state"] == "PARKED"
    assert "net 1243" in unfinished[wrong[0].event_id]["reason"]


async def test_clearing_a_payment_with_other_figures_is_parked(settlement: SettlementKit) -> None:
    paid = settlement.paid(1250)
    await settlement.hear(paid)
    other = settlement.paid(1300, id=paid.aggregate_id)
    await settlement.hear(other)
    assert "cleared before with other figures" in await settlement.parked(other)
    assert await settlement.entries() == [("PAYMENT", 1250, 8, 1242)]


async def test_recharges_and_their_refunds_make_no_entry(settlement: SettlementKit) -> None:
    recharge = settlement.paid(1250, order_type="recharge")
    back = settlement.given_back(recharge.aggregate_id, 1250, 0)
    await settlement.hear(recharge)
    await settlement.hear(back)
    assert await settlement.entries() == []
    assert await settlement.parked(back) == ""


async def test_a_refund_that_comes_before_its_payment_waits_for_it(
    settlement: SettlementKit,
) -> None:
    paid = settlement.paid(10_000)
    back = settlement.given_back(paid.aggregate_id, 10_000, 60)
    await settlement.hear(back)
    assert paid.aggregate_id in await settlement.parked(back)
    await settlement.hear(paid)
    async with settlement.kit.pools["settlement"].acquire() as connection:
        await connection.execute("UPDATE inbox_parked SET due_at = clock_timestamp()")
    await settlement.consumer.handle_parked()
    assert await settlement.entries() == [
        ("PAYMENT", 10_000, 60, 9_940),
        ("REFUND", -10_000, -60, -9_940),
    ]


async def test_changing_an_entry_is_refused_by_the_database(settlement: SettlementKit) -> None:
    await settlement.hear(settlement.paid(1250))
    for statement in ("UPDATE clearing_entries SET fee_minor = 0", "DELETE FROM clearing_entries"):
        with pytest.raises(asyncpg.RestrictViolationError):
            async with settlement.kit.pools["settlement"].acquire() as connection:
                await connection.execute(statement)


async def test_story_and_facts_tell_of_an_entry(settlement: SettlementKit) -> None:
    paid = settlement.paid(1250)
    back = settlement.given_back(paid.aggregate_id, 250, 2)
    await settlement.hear(paid, back)
    with bound(operator_call("operator")):
        story = await settlement.operator.ListStory(ListStoryRequest(subject_id=paid.aggregate_id))
        assert story.biz_trace_id == paid.biz_trace_id
        assert [item.summary for item in story.items] == [f"cleared {paid.aggregate_id}"]
        facts = {}
        token = ""
        while True:
            page = await settlement.operator.ListFacts(
                ListFactsRequest(kind="clearing_entry", page_size=3, page_token=token)
            )
            facts |= {fact.key: dict(fact.values) for fact in page.facts}
            token = page.next_page_token
            if not token:
                break
    assert facts[paid.aggregate_id]["net_minor"] == "1242"
    assert facts[back.aggregate_id]["gross_minor"] == "-250"


async def test_reading_anothers_totals_is_refused(settlement: SettlementKit) -> None:
    request = ListClearingTotalsRequest(
        merchant_id=settlement.merchant_id, from_on=DAY, until_on=DAY
    )
    with bound(merchant_call(settlement.kit.ids.new("mer"))), pytest.raises(RemoteError) as caught:
        await settlement.edge.ListClearingTotals(request)
    assert caught.value.remote_reason == "NOT_FOUND"
    request.from_on = "1997-02-30"
    with bound(merchant_call(settlement.merchant_id)), pytest.raises(RemoteError) as caught:
        await settlement.edge.ListClearingTotals(request)
    assert caught.value.field == "from_on"
