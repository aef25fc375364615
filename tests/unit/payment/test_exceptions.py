"""What a person decides about: every exception has a way out that needs nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest

from common.money import Money
from services.cli.audit import expected_of_payment, expected_of_refund
from services.payment.domain.exceptions import (
    ACTIONS,
    EXCEPTION_MOVES,
    Action,
    Deadlines,
    ExceptionKind,
    ExceptionState,
    PaymentException,
    exception_id,
    is_settled_by,
    new_exception,
)
from services.payment.domain.payments import refund_reference
from services.payment.domain.states import IllegalMoveError, PaymentState, RefundState
from tests.unit.payment.samples import AT, a_payment, a_refund

DEADLINES = Deadlines(first_seconds=60, repeats_max=3)


def _an_exception(kind: ExceptionKind = ExceptionKind.RETURN_REFUSED) -> PaymentException:
    payment = a_payment()
    return new_exception(
        kind,
        payment,
        DEADLINES,
        AT,
        occasion="1",
        detail="",
        amount=payment.amount,
        channel="alipay",
    )


def test_every_kind_has_actions_and_every_state_moves() -> None:
    assert set(ACTIONS) == set(ExceptionKind)
    assert set(EXCEPTION_MOVES) == set(ExceptionState)
    assert {action for actions in ACTIONS.values() for action in actions} == set(Action)
    for state, moves in EXCEPTION_MOVES.items():
        assert state is ExceptionState.RESOLVED or ExceptionState.RESOLVED in moves


@pytest.mark.parametrize("kind", list(ExceptionKind))
def test_nothing_that_needs_proof_is_done_by_a_deadline(kind: ExceptionKind) -> None:
    for repeats in range(10):
        assert DEADLINES.default_action(kind, repeats) not in (Action.FAIL, Action.DISMISS)


def test_deadlines_double_up_to_a_bound() -> None:
    waits = [DEADLINES.due_at(AT, repeats) - AT for repeats in range(6)]
    assert waits == [timedelta(seconds=60 * n) for n in (1, 2, 4, 8, 8, 8)]


def test_a_channel_that_always_refuses_is_not_asked_for_ever() -> None:
    kind = ExceptionKind.RETURN_REFUSED
    actions = [DEADLINES.default_action(kind, repeats) for repeats in range(5)]
    assert actions == [Action.RETRY] * 3 + [Action.MOVE_TO_UNCLAIMED] * 2


def test_ids_are_the_same_for_the_same_occasion_only() -> None:
    payment_id = a_payment().id
    kind = ExceptionKind.RETURN_REFUSED
    assert exception_id(kind, payment_id, "1") == exception_id(kind, payment_id, "1")
    others = {
        exception_id(kind, payment_id, "2"),
        exception_id(ExceptionKind.LEDGER_REFUSED, payment_id, "1"),
        exception_id(kind, a_refund().id, "1"),
    }
    assert exception_id(kind, payment_id, "1") not in others
    assert len(others) == 3


def test_putting_off_takes_the_decision_back_and_counts() -> None:
    decided = _an_exception().moved(
        ExceptionState.APPROVED, AT, action=Action.RETRY, maker="SERVICE:payment"
    )
    later = decided.put_off(AT, AT + timedelta(seconds=9), "in vain")
    assert (later.state, later.action, later.maker) == (ExceptionState.OPEN, None, "")
    assert (later.repeats, later.version, later.detail) == (1, 3, "in vain")


def test_what_is_resolved_stays_so() -> None:
    done = _an_exception().resolved("done", AT)
    for state in ExceptionState:
        with pytest.raises(IllegalMoveError):
            done.moved(state, AT)


@pytest.mark.parametrize(
    ("kind", "state", "settled"),
    [
        (ExceptionKind.AMOUNT_MISMATCH, PaymentState.RETURNING, False),
        (ExceptionKind.AMOUNT_MISMATCH, PaymentState.RETURNED, True),
        (ExceptionKind.RETURN_REFUSED, PaymentState.UNCLAIMED, True),
        (ExceptionKind.OUTCOME_UNKNOWN, PaymentState.RETURNING, False),
        (ExceptionKind.OUTCOME_UNKNOWN, PaymentState.CONFLICTED, True),
        (ExceptionKind.OUTCOME_UNKNOWN, RefundState.HELD, False),
        (ExceptionKind.OUTCOME_UNKNOWN, RefundState.FAILED, True),
        (ExceptionKind.LEDGER_REFUSED, PaymentState.UNKNOWN, False),
        (ExceptionKind.LEDGER_REFUSED, PaymentState.CONFLICTED, True),
        (ExceptionKind.REFUND_AFTER_FAILURE, RefundState.FAILED, False),
        (ExceptionKind.RETURN_AFTER_END, PaymentState.RETURNED, False),
        (ExceptionKind.CALLBACK_CONTRADICTION, PaymentState.SUCCEEDED, False),
    ],
)
def test_a_subject_settles_what_it_needs_no_more(
    kind: ExceptionKind, state: PaymentState | RefundState, settled: bool
) -> None:
    assert is_settled_by(kind, state) is settled


def test_attempts_to_give_back_have_references_of_their_own() -> None:
    noun = a_refund().id
    references = {refund_reference(noun, attempt) for attempt in (1, 2, 3)}
    assert len(references) == 3
    assert refund_reference(noun) == refund_reference(noun, 1)


def _payment_fact(**values: str) -> dict[str, str]:
    return {
        "amount_minor": "1000",
        "fee_minor": "6",
        "order_type": "purchase",
        "received_currency_code": "",
        "received_minor": "0",
    } | values


@pytest.mark.parametrize(
    ("values", "booked"),
    [
        ({"state": "UNCLAIMED"}, {"payment.receive": 1000, "payment.unclaim": 1000}),
        (
            {"state": "CONFLICTED", "received_currency_code": "EUR", "received_minor": "900"},
            {"payment.conflict": 900},
        ),
        (
            {"state": "RETURNED", "received_currency_code": "EUR", "received_minor": "900"},
            {"payment.conflict": 900, "payment.conflict_return": 900},
        ),
        (
            {"state": "UNCLAIMED", "received_currency_code": "USD", "received_minor": "900"},
            {"payment.conflict": 900, "payment.unclaim": 900},
        ),
        (
            {"state": "RETURNED", "way_out": "UNCLAIM"},
            {"payment.receive": 1000, "payment.unclaim": 1000, "payment.unclaimed_return": 1000},
        ),
        (
            {"state": "RETURNED", "way_out": "RETURN", "late_returns": "2"},
            {"payment.receive": 1000, "payment.return": 1000, "payment.late_return": 2000},
        ),
    ],
)
def test_audit_wants_what_really_came(values: dict[str, str], booked: dict[str, int]) -> None:
    assert expected_of_payment(_payment_fact(**values)) == booked


def test_audit_takes_a_hold_that_was_released_unseen() -> None:
    refund = {
        "amount_minor": "400",
        "fee_returned_minor": "2",
        "state": "FAILED",
        "source_kind": "",
    }
    held = {"refund.hold": 398, "refund.fee_hold": 2, "refund.void": 398, "refund.fee_void": 2}
    payment = _payment_fact(state="SUCCEEDED")
    assert expected_of_refund(refund, payment) == {}
    assert expected_of_refund(refund, payment, held) == held


def test_audit_wants_a_loss_where_the_channel_gave_back_what_had_failed() -> None:
    refund = {
        "amount_minor": "400",
        "fee_returned_minor": "0",
        "state": "FAILED",
        "source_kind": "merchant_pending",
        "business_date": "2026-11-22",
    }
    released = {"refund.hold": 400, "refund.void": 400}
    payment = _payment_fact(state="SUCCEEDED")
    assert expected_of_refund(refund, payment) == released | {"refund.late": 400}
    assert expected_of_refund(refund | {"business_date": ""}, payment) == released


def test_what_came_is_what_goes_back() -> None:
    assert a_payment().money_in == Money("USD", 1000)
    assert a_payment(received=Money("EUR", 900)).money_in == Money("EUR", 900)
