"""The plan of the demo: seeded, the same for the same lines, in the shares that were asked for."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from services.cli.demo.plan import WAYS, PlannedPurchase, plan_purchases, recharges_of
from services.cli.demo.purchases import Purchase


def _purchases(count: int, amount_minor: int = 1500) -> list[Purchase]:
    day = date(1997, 1, 1)
    return [Purchase(line, str(line % 97), day, 1, amount_minor) for line in range(1, count + 1)]


@pytest.fixture(scope="module")
def plan() -> list[PlannedPurchase]:
    """As many purchases as the sample has."""
    return plan_purchases(_purchases(6919))


def test_planning_twice_does_the_same(plan: list[PlannedPurchase]) -> None:
    assert plan_purchases(_purchases(6919)) == plan
    assert plan_purchases(_purchases(6919), seed=2) != plan


def test_planning_depends_on_the_line_alone(plan: list[PlannedPurchase]) -> None:
    """So that a limited run does to its lines what the whole run does to them."""
    some = _purchases(6919)[100:50:-1]
    planned = {one.purchase.line: one for one in plan}
    assert plan_purchases(some) == [planned[one.line] for one in some]


def test_ways_are_mixed_evenly(plan: list[PlannedPurchase]) -> None:
    counts = Counter(one.way for one in plan)
    assert set(counts) == set(WAYS)
    for way in WAYS:
        assert 0.28 < counts[way] / len(plan) < 0.39, way


def test_about_five_percent_are_declined_first_and_paid_another_way(
    plan: list[PlannedPurchase],
) -> None:
    declined = [one for one in plan if one.declined_first]
    assert 0.04 < len(declined) / len(plan) < 0.06
    assert all(one.way != "quick_pay" for one in declined)


def test_about_five_percent_are_refunded_half_of_them_in_part(plan: list[PlannedPurchase]) -> None:
    refunded = [one for one in plan if one.refund_minor]
    in_part = [one for one in refunded if one.refund_minor < one.purchase.amount_minor]
    assert 0.04 < len(refunded) / len(plan) < 0.06
    assert 0.4 < len(in_part) / len(refunded) < 0.6
    assert all(0 < one.refund_minor <= one.purchase.amount_minor for one in refunded)


def test_smallest_amount_is_refunded_only_whole() -> None:
    assert {one.refund_minor for one in plan_purchases(_purchases(2000, amount_minor=1))} == {0, 1}


def test_order_for_nothing_needs_no_way() -> None:
    for one in plan_purchases(_purchases(50, amount_minor=0)):
        assert (one.way, one.declined_first, one.refund_minor) == ("", False, 0)


def test_order_numbers_come_from_the_lines(plan: list[PlannedPurchase]) -> None:
    assert plan[0].order_no == "line-000001"
    assert len({one.order_no for one in plan}) == len(plan)


def test_customers_recharge_exactly_what_their_balance_will_pay(
    plan: list[PlannedPurchase],
) -> None:
    recharges = recharges_of(plan)
    paid = sum(one.purchase.amount_minor for one in plan if one.way == "balance")
    assert sum(recharges.values()) == paid
    assert all(amount > 0 for amount in recharges.values())
