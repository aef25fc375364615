"""News of a charge may come in any order: where it ends depends on what was told, not when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from common.money import Money
from services.channel.domain import (
    CHARGE_MOVES,
    REFUND_MOVES,
    Charge,
    ChargeState,
    News,
    Owner,
    Refund,
    RefundState,
    Verdict,
    hear_charge,
    hear_refund,
    unseen_charge_state,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER = Owner("default", "LIVE", "mer_1", "MERCHANT:key_1", "biz_1")
ASKED = Money("USD", 1234)
CHARGE = Charge(
    reference="att0001",
    owner=OWNER,
    channel="alipay_a",
    payment_id="pay_1",
    product="qr_pay",
    card_id="",
    subject="CDs",
    amount=ASKED,
    expires_at=None,
    created_at=NOW,
    updated_at=NOW,
)
REFUND = Refund(
    reference="rch0001",
    charge_reference="att0001",
    owner=OWNER,
    channel="alipay_a",
    subject_id="rfd_1",
    amount=ASKED,
    words="",
    created_at=NOW,
    updated_at=NOW,
)

told_of_charge = st.sampled_from(["PENDING", "SUCCEEDED", "FAILED", "CLOSED"]).map(
    lambda state: News(state=state, money=ASKED if state == "SUCCEEDED" else None)
)


@given(st.lists(told_of_charge, max_size=8))
def test_hearing_in_any_order_keeps_money_that_came(news: list[News]) -> None:
    charge, states = CHARGE, [CHARGE.state]
    for one in news:
        after, verdict = hear_charge(charge, one, NOW)
        assert after.version == charge.version + (verdict in ("CHANGED", "COMPLETED"))
        if after.state is not charge.state:
            states.append(after.state)
        charge = after
    for before, now in pairwise(states):
        assert now in CHARGE_MOVES[before]
    told = {one.state for one in news}
    if "SUCCEEDED" in told:
        assert charge.state is ChargeState.SUCCEEDED
        assert charge.received == ASKED
    elif told & {"FAILED", "CLOSED"}:
        assert charge.state in told & {"FAILED", "CLOSED"}
    else:
        assert charge.state == ("PENDING" if told else "UNKNOWN")


@given(st.lists(told_of_charge, max_size=5), st.integers(1, 10**15))
def test_success_with_another_amount_is_never_a_success(news: list[News], minor: int) -> None:
    money = Money("USD", minor)
    charge = CHARGE
    for one in [*(one for one in news if one.state != "SUCCEEDED"), News("SUCCEEDED", money)]:
        charge, _ = hear_charge(charge, one, NOW)
    assert charge.state == ("SUCCEEDED" if money == ASKED else "CONFLICTED")
    assert charge.received == money


@given(st.lists(st.sampled_from(["PENDING", "SUCCEEDED", "FAILED", "NOT_SENT"]), max_size=8))
def test_refund_that_was_given_stays_given(told: list[str]) -> None:
    refund = REFUND
    for state in told:
        after, _ = hear_refund(refund, News(state=state), NOW)
        assert after.state == refund.state or after.state in REFUND_MOVES[refund.state]
        refund = after
    if "SUCCEEDED" in told:
        assert refund.state is RefundState.SUCCEEDED


def test_refund_of_another_amount_is_not_believed() -> None:
    after, verdict = hear_refund(REFUND, News("SUCCEEDED", Money("USD", 1)), NOW)
    assert (after, verdict) == (REFUND, Verdict.CONTRADICTED)


def test_unseen_charge_ends_only_after_the_requests_life() -> None:
    life = timedelta(seconds=120)
    assert unseen_charge_state(CHARGE, NOW + life, life) == ""
    assert unseen_charge_state(CHARGE, NOW + life + timedelta(seconds=1), life) == "FAILED"
    # A code that waits for its payer lives as long as the payer may pay.
    code, _ = hear_charge(CHARGE, News("PENDING"), NOW)
    assert unseen_charge_state(code, NOW + timedelta(hours=1), life) == ""
    assert unseen_charge_state(code, NOW + timedelta(hours=3), life) == "CLOSED"
