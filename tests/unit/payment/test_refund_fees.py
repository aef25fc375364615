"""Fees that go back with refunds: never negative, never more than the refund, in the end all."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.payment.domain.payments import Payment
from tests.unit.payment.samples import a_payment

AMOUNTS = st.integers(1, 3000) | st.integers(1, 10**15)


@st.composite
def _paid(draw: st.DrawFn) -> Payment:
    """A payment with a fee, from nothing to all of it."""
    amount = draw(AMOUNTS)
    return a_payment(amount, draw(st.integers(0, amount)))


def _begun(payment: Payment, refund_minor: int, fee_minor: int) -> Payment:
    """The cap and the fee are taken with the intent."""
    return replace(
        payment,
        refunding_minor=payment.refunding_minor + refund_minor,
        fee_given_back_minor=payment.fee_given_back_minor + fee_minor,
    )


def _ended(payment: Payment, refund_minor: int, fee_minor: int, *, succeeded: bool) -> Payment:
    return replace(
        payment,
        refunding_minor=payment.refunding_minor - refund_minor,
        refunded_minor=payment.refunded_minor + (refund_minor if succeeded else 0),
        fee_given_back_minor=payment.fee_given_back_minor - (0 if succeeded else fee_minor),
    )


@given(_paid(), st.data())
def test_refunding_all_in_parts_returns_the_whole_fee(
    payment: Payment, data: st.DataObject
) -> None:
    """Refunds begin in any number, fail or succeed in any order; one completes the amount."""
    amount, fee = payment.amount.amount_minor, payment.fee_minor
    open_refunds: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(0, 12), label="steps")):
        one_ends = data.draw(st.booleans(), label="one ends")
        if open_refunds and one_ends:
            which = data.draw(st.integers(0, len(open_refunds) - 1), label="which")
            one = open_refunds.pop(which)
            succeeded = data.draw(st.booleans(), label="succeeds")
            payment = _ended(payment, *one, succeeded=succeeded)
        elif payment.refundable_minor > 0:
            part = data.draw(st.integers(1, payment.refundable_minor), label="part")
            back = payment.fee_for_refund(part)
            assert 0 <= back <= part
            open_refunds.append((part, back))
            payment = _begun(payment, part, back)
        assert 0 <= payment.fee_given_back_minor <= fee
    for one in open_refunds:
        succeeded = data.draw(st.booleans(), label="last news")
        payment = _ended(payment, *one, succeeded=succeeded)
    rest = payment.refundable_minor
    if rest > 0:
        back = payment.fee_for_refund(rest)
        assert 0 <= back <= rest
        payment = _ended(_begun(payment, rest, back), rest, back, succeeded=True)
    assert payment.refunded_minor == amount
    assert payment.fee_given_back_minor == fee


@given(_paid(), st.data())
def test_refunding_in_sequence_returns_the_fee_in_proportion(
    payment: Payment, data: st.DataObject
) -> None:
    """Without failures each refund's fee is f(so far) − f(before), half-up."""
    amount, fee = payment.amount.amount_minor, payment.fee_minor
    while payment.refundable_minor > 0:
        left = payment.refundable_minor
        part = data.draw(st.integers(max(1, left // 3), left), label="part")
        back = payment.fee_for_refund(part)
        payment = _ended(_begun(payment, part, back), part, back, succeeded=True)
        exact = 2 * fee * payment.refunded_minor
        assert abs(2 * amount * payment.fee_given_back_minor - exact) <= amount
    assert payment.fee_given_back_minor == fee


@given(_paid(), st.data())
def test_refunding_under_a_contract_that_keeps_fees_returns_none(
    payment: Payment, data: st.DataObject
) -> None:
    kept = replace(payment, fee_returned_on_refund=False)
    assert kept.fee_for_refund(data.draw(st.integers(1, kept.refundable_minor))) == 0


def test_refunding_half_of_an_odd_fee_rounds_half_up() -> None:
    payment = a_payment(1000, 5)
    assert payment.fee_for_refund(500) == 3
    after = _ended(_begun(payment, 500, 3), 500, 3, succeeded=True)
    assert after.fee_for_refund(500) == 2


def test_refunding_again_after_a_failure_uses_its_fee_again() -> None:
    payment = a_payment(1000, 5)
    failed = _ended(_begun(payment, 500, 3), 500, 3, succeeded=False)
    assert failed.fee_for_refund(1000) == 5


def test_refundable_is_what_is_neither_back_nor_on_its_way() -> None:
    payment = a_payment(1000, refunded_minor=300, refunding_minor=200)
    assert payment.refundable_minor == 500
    assert payment.net_minor == 994
