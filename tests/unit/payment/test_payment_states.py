"""The state tables of payments and refunds: every state is left or ended, nothing is a dead end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.payment.domain.states import (
    PAYMENT_ENDED,
    PAYMENT_MOVES,
    PAYMENT_OPEN,
    REFUND_ENDED,
    REFUND_MOVES,
    IllegalMoveError,
    PaymentState,
    RefundState,
    check_payment_path,
    check_refund_path,
)
from tests.unit.payment.samples import a_payment, a_refund


def _reachable(moves: Mapping[Any, frozenset[Any]], start: Any) -> set[Any]:
    found, waiting = {start}, [start]
    while waiting:
        for state in moves[waiting.pop()] - found:
            found.add(state)
            waiting.append(state)
    return found


def test_tables_know_every_state() -> None:
    assert set(PAYMENT_MOVES) == set(PaymentState)
    assert set(REFUND_MOVES) == set(RefundState)


def test_every_payment_state_is_reached_and_leads_to_an_end() -> None:
    assert _reachable(PAYMENT_MOVES, PaymentState.PENDING) == set(PaymentState)
    for state in PaymentState:
        assert _reachable(PAYMENT_MOVES, state) & PAYMENT_ENDED, state


def test_every_refund_state_is_reached_and_leads_to_an_end() -> None:
    assert _reachable(REFUND_MOVES, RefundState.PENDING) == set(RefundState)
    for state in RefundState:
        assert _reachable(REFUND_MOVES, state) & REFUND_ENDED, state


def test_ended_money_never_moves_again() -> None:
    """Only what ended without money may learn that there was some, or what is kept that it went."""
    assert not PAYMENT_MOVES[PaymentState.SUCCEEDED]
    assert not PAYMENT_MOVES[PaymentState.RETURNED]
    assert PAYMENT_MOVES[PaymentState.UNCLAIMED] == {PaymentState.RETURNED}
    for state in (PaymentState.FAILED, PaymentState.CLOSED):
        assert PAYMENT_MOVES[state] == {PaymentState.RECEIVED, PaymentState.CONFLICTED}
    for ended in REFUND_ENDED:
        assert not REFUND_MOVES[ended]


def test_success_comes_only_through_received_money() -> None:
    before = {state for state, after in PAYMENT_MOVES.items() if PaymentState.SUCCEEDED in after}
    assert before == {PaymentState.RECEIVED}
    assert not PAYMENT_OPEN & PAYMENT_ENDED


def test_refund_succeeds_only_from_a_hold() -> None:
    """The channel is never called without the hold."""
    before = {state for state, after in REFUND_MOVES.items() if RefundState.SUCCEEDED in after}
    assert before == {RefundState.HELD, RefundState.UNKNOWN}
    assert RefundState.UNKNOWN not in REFUND_MOVES[RefundState.PENDING]
    assert RefundState.UNKNOWN not in REFUND_MOVES[RefundState.WAITING_FUNDS]


@pytest.mark.parametrize("before", list(PaymentState))
@pytest.mark.parametrize("after", list(PaymentState))
def test_moving_a_payment_follows_the_table(before: PaymentState, after: PaymentState) -> None:
    payment = a_payment(state=before, version=4)
    if after in PAYMENT_MOVES[before]:
        moved = payment.moved(after, business_date="2026-01-01")
        assert (moved.state, moved.version, moved.business_date) == (after, 5, "2026-01-01")
    else:
        with pytest.raises(IllegalMoveError):
            payment.moved(after)


@pytest.mark.parametrize("before", list(RefundState))
@pytest.mark.parametrize("after", list(RefundState))
def test_moving_a_refund_follows_the_table(before: RefundState, after: RefundState) -> None:
    refund = a_refund(state=before, version=2)
    if after in REFUND_MOVES[before]:
        assert refund.moved(after).version == 3
    else:
        with pytest.raises(IllegalMoveError):
            refund.moved(after)


def test_moving_along_a_path_counts_every_move() -> None:
    moved = a_payment().moved(PaymentState.RECEIVED, PaymentState.SUCCEEDED)
    assert (moved.state, moved.version) == (PaymentState.SUCCEEDED, 3)


def test_paths_with_one_illegal_move_are_refused() -> None:
    with pytest.raises(IllegalMoveError, match="PENDING → SUCCEEDED"):
        check_payment_path((PaymentState.PENDING, PaymentState.SUCCEEDED))
    with pytest.raises(IllegalMoveError, match="PENDING → UNKNOWN"):
        check_refund_path((RefundState.PENDING, RefundState.UNKNOWN))
