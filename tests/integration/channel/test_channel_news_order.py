"""News of a charge may come in any order: where it ends depends on what was told, not when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
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
from services.channel.flows.read_result import charge_news, refund_news
from services.channel.guard import compare
from services.channel.results import ChannelResult, State
from services.channel.store.news import CHARGES, Notice, Told

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


callbacks = st.builds(
    News,
    state=st.sampled_from(["PENDING", "SUCCEEDED", "FAILED", "CLOSED"]),
    money=st.sampled_from([None, ASKED, Money("USD", 1), Money("EUR", 1234)]),
)


@given(st.lists(st.tuples(callbacks, st.booleans()), max_size=8))
def test_callbacks_alone_end_a_charge_only_as_it_was_asked_for(
    told: list[tuple[News, bool]],
) -> None:
    """Whatever they say, and though the channel was asked in vain: no conflict, no failure."""
    charge: Charge | None = CHARGE
    taken: set[tuple[str, str]] = set()
    for number, (news, is_checked) in enumerate(told):
        notice = Notice(
            callback_id=f"cbk_{number}",
            channel=CHARGE.channel,
            notice_id=str(number),
            kind="PAYMENT",
            raw_code="",
            body_digest=b"",
            is_checked=is_checked,
        )
        one = Told(reference=CHARGE.reference, news=news, at=NOW, actor="", way="", notice=notice)
        before = charge
        charge, verdict = CHARGES.judge(before, one, taken)
        if verdict == "DOUBTED" and not is_checked:
            assert charge == before
            assert (CHARGE.channel, str(number)) not in taken
        assert charge is not None
        assert charge.state in ("UNKNOWN", "PENDING", "SUCCEEDED")
    assert charge is not None
    is_paid = any(news == News("SUCCEEDED", ASKED) for news, _ in told)
    assert (charge.state == "SUCCEEDED") == is_paid


def test_conclusion_about_another_version_is_void() -> None:
    told = Told(
        reference=CHARGE.reference,
        news=News("FAILED"),
        at=NOW,
        actor="",
        way="query",
        of_version=CHARGE.version + 1,
    )
    assert CHARGES.judge(CHARGE, told, set()) == (CHARGE, Verdict.NOTHING_NEW)


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED, State.CLOSED])
def test_another_amount_conflicts_only_where_money_moved(state: State) -> None:
    other = Money("USD", 1)
    result = ChannelResult(state=state, reference=CHARGE.reference, money=other)
    news = charge_news(compare(result, CHARGE.reference, ASKED))
    assert news is not None
    assert news.state == state.value
    paid = ChannelResult(state=State.SUCCEEDED, reference=CHARGE.reference, money=other)
    news = charge_news(compare(paid, CHARGE.reference, ASKED))
    assert news is not None
    assert (news.state, news.money) == ("CONFLICTED", other)
    stray = charge_news(compare(paid, "attother", ASKED))
    assert stray is None
    assert refund_news(compare(paid, CHARGE.reference, ASKED)) is None


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
