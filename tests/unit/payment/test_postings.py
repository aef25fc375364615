"""Each chain moves what it should, under ids that a repeat makes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from common.money import Money
from services.payment.domain.payments import Payment
from services.payment.domain.postings import (
    Posting,
    conflict_chain,
    hold_chain,
    hold_sources,
    receive_chain,
    refund_chain,
    release_chain,
    return_chain,
    settle_chain,
)
from tests.unit.payment.samples import a_payment, a_refund, account_named

TRANSIT = "payment_transit(platform)"
REFUND_TRANSIT = "refund_transit(platform)"


@st.composite
def _payments(draw: st.DrawFn) -> Payment:
    amount = draw(st.integers(1, 10**15))
    return a_payment(
        amount,
        draw(st.integers(0, amount)),
        channel=draw(st.sampled_from(["alipay", "unionpay", "balance"])),
        order_type=draw(st.sampled_from(["purchase", "recharge"])),
    )


def moved(*chains: Iterable[Posting]) -> Counter[str]:
    """What accounts gain by the chains; a post moves what its hold promised."""
    postings = [posting for chain in chains for posting in chain]
    pending = {posting.id: posting for posting in postings if posting.kind == "PENDING"}
    gains: Counter[str] = Counter()
    for posting in postings:
        source = pending[posting.pending_id] if posting.kind == "POST" else posting
        if posting.kind in ("SINGLE", "POST"):
            gains[source.debit_account_id] -= source.amount_minor
            gains[source.credit_account_id] += source.amount_minor
    return Counter({account: gain for account, gain in gains.items() if gain})


@given(_payments())
def test_claimed_payment_leaves_nothing_in_transit(payment: Payment) -> None:
    gains = moved(receive_chain(payment, account_named), settle_chain(payment, account_named))
    amount, fee = payment.amount.amount_minor, payment.fee_minor
    payer = (
        "user_available(usr_buyer)"
        if payment.is_internal
        else f"channel_receivable({payment.channel})"
    )
    wanted: Counter[str] = Counter({payer: -amount})
    if payment.order_type == "recharge":
        wanted["user_available(usr_buyer)"] += amount
    else:
        wanted["merchant_pending(mer_shop)"] += amount - fee
        wanted["platform_fee(platform)"] += fee
    assert gains == Counter({account: gain for account, gain in wanted.items() if gain})


@given(_payments())
def test_lost_claim_undoes_the_receipt(payment: Payment) -> None:
    assert not moved(receive_chain(payment, account_named), return_chain(payment, account_named))


@given(_payments(), st.integers(1, 10**15))
def test_conflict_books_what_really_came(payment: Payment, received_minor: int) -> None:
    conflicted = replace(payment, received=Money("EUR", received_minor))
    (posting,) = conflict_chain(conflicted, account_named)
    assert posting.credit_account_id == "suspense(platform)"
    assert posting.amount_minor == received_minor


@given(_payments(), st.data())
def test_refund_passes_through_its_transit(payment: Payment, data: st.DataObject) -> None:
    amount = data.draw(st.integers(1, payment.amount.amount_minor))
    fee = data.draw(st.integers(0, min(amount, payment.fee_minor)))
    source = data.draw(st.sampled_from(hold_sources(payment)))
    fee = 0 if source == "user_available" else fee
    refund = a_refund(amount, fee, source_kind=source)
    hold = hold_chain(payment, refund, source, account_named)
    assert not moved(hold), "a hold is a promise"
    assert sum(posting.amount_minor for posting in hold) == amount
    assert all(posting.amount_minor > 0 for posting in hold)
    gains = moved(hold, refund_chain(payment, refund, account_named))
    assert gains[REFUND_TRANSIT] == 0
    assert sum(gains.values()) == 0
    assert gains["platform_fee(platform)"] == -fee
    payer = (
        "user_available(usr_buyer)"
        if payment.is_internal
        else f"channel_receivable({payment.channel})"
    )
    if source != "user_available":
        assert gains[payer] == amount
        assert gains[f"{source}(mer_shop)"] == fee - amount
    assert not moved(hold, release_chain(refund))


@given(_payments(), st.integers(1, 5))
def test_every_hold_is_resolved_by_post_or_void(payment: Payment, attempt: int) -> None:
    refund = a_refund(attempt=attempt)
    held = {p.id for p in hold_chain(payment, refund, "merchant_pending", account_named)}
    posted = {p.pending_id for p in refund_chain(payment, refund, account_named)} - {""}
    voided = {p.pending_id for p in release_chain(refund)}
    assert held == posted == voided


@given(_payments())
def test_lines_of_zero_are_left_out(payment: Payment) -> None:
    assert all(posting.amount_minor > 0 for posting in settle_chain(payment, account_named))


def test_repeats_make_the_same_ids_and_attempts_other_ones() -> None:
    payment, later = a_payment(), a_payment(attempt=2)
    assert receive_chain(payment, account_named) == receive_chain(payment, account_named)
    assert receive_chain(payment, account_named)[0].id != receive_chain(later, account_named)[0].id
    assert settle_chain(payment, account_named) == settle_chain(later, account_named)
    held = [
        hold_chain(payment, a_refund(attempt=n), "merchant_pending", account_named) for n in (1, 2)
    ]
    assert not {p.id for p in held[0]} & {p.id for p in held[1]}


def test_sources_of_a_hold_are_tried_in_the_stated_order() -> None:
    assert hold_sources(a_payment()) == ("merchant_pending", "merchant_settled")
    assert hold_sources(a_payment(order_type="recharge")) == ("user_available",)
