"""Balancing and forced transfers: how much is moved, and who may take an account below zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.account.domain.accounts import AccountStatus, Side
from services.account.domain.bookings import unclaimed_account_id
from services.account.domain.requests import RequestRules
from services.account.domain.transfers import TransferKind, TransferResult, TransferStatus
from tests.unit.account.decided import NOW, Decided, account, transfer

USER, SHOP = account("user", 100), account("shop")
OWED = account("owed", 70, normal_side=Side.DEBIT, may_go_negative=True)
PENDING = TransferKind.PENDING


def outcome(result: TransferResult) -> tuple[str, int]:
    return result.reason or result.status, result.booked_minor


@pytest.mark.parametrize("kind", [TransferKind.SINGLE, TransferKind.PENDING])
@pytest.mark.parametrize(
    ("amount", "changes", "expected"),
    [
        (40, {}, ("BOOKED", 40)),
        (400, {}, ("BOOKED", 100)),
        (400, {"credit_limit_minor": 30}, ("BOOKED", 130)),
        (400, {"court_frozen_minor": 30}, ("BOOKED", 70)),
        (400, {"debits_pending_minor": 99}, ("BOOKED", 1)),
        (400, {"debits_pending_minor": 100}, ("INSUFFICIENT_FUNDS", 0)),
        (400, {"debits_posted_minor": 120}, ("INSUFFICIENT_FUNDS", 0)),
        (400, {"may_go_negative": True}, ("BOOKED", 400)),
        (400, {"status": AccountStatus.DEBIT_FROZEN}, ("ACCOUNT_DEBIT_FROZEN", 0)),
    ],
)
def test_balancing_a_debit_takes_what_there_is_up_to_the_amount(
    kind: TransferKind, amount: int, changes: dict[str, Any], expected: tuple[str, int]
) -> None:
    user = replace(USER, **changes)
    order = transfer(1, user, SHOP, amount, kind=kind, balancing_debit=True)
    assert outcome(Decided([user, SHOP]).result(order)) == expected


@pytest.mark.parametrize(
    ("amount", "changes", "expected"),
    [
        (40, {}, ("BOOKED", 40)),
        (400, {}, ("BOOKED", 70)),
        (400, {"credits_pending_minor": 69}, ("BOOKED", 1)),
        (400, {"credits_pending_minor": 70}, ("INSUFFICIENT_FUNDS", 0)),
        (400, {"may_go_negative": False, "credit_limit_minor": 9}, ("BOOKED", 70)),
        (400, {"normal_side": Side.CREDIT}, ("FIELD_INVALID", 0)),
    ],
)
def test_balancing_a_credit_takes_what_the_account_still_carries(
    amount: int, changes: dict[str, Any], expected: tuple[str, int]
) -> None:
    owed, payer = replace(OWED, **changes), account("payer", 1000)
    order = transfer(1, payer, owed, amount, balancing_credit=True)
    assert outcome(Decided([owed, payer]).result(order)) == expected


def test_balancing_both_sides_takes_the_smaller() -> None:
    order = transfer(1, USER, OWED, 400, balancing_debit=True, balancing_credit=True)
    assert outcome(Decided([USER, OWED]).result(order)) == ("BOOKED", 70)


def test_balancing_twice_in_a_batch_leaves_nothing_for_the_second() -> None:
    first = transfer(1, USER, SHOP, 60, balancing_debit=True)
    second = transfer(2, USER, SHOP, 60, balancing_debit=True)
    third = transfer(3, USER, SHOP, 60, balancing_debit=True)
    answers = Decided([USER, SHOP]).take(first, second, third).answers
    assert [outcome(one[0]) for one in answers] == [
        ("BOOKED", 60),
        ("BOOKED", 40),
        ("INSUFFICIENT_FUNDS", 0),
    ]


def test_repeating_a_balancing_transfer_answers_with_the_amount_of_the_first_time() -> None:
    order = transfer(1, USER, SHOP, 400, balancing_debit=True)
    stored = Decided([USER, SHOP]).take(order).stored[0]
    richer = Decided([replace(USER, credits_posted_minor=9_000), SHOP], {order.id: stored})
    again = richer.result(order)
    assert (again.replayed, *outcome(again)) == (True, "BOOKED", 100)
    other = richer.result(replace(order, balancing_debit=False))
    assert other.refusal is not None
    assert other.refusal.metadata["field"] == "balancing_debit"


def test_a_balancing_hold_keeps_back_what_it_found() -> None:
    decision = Decided([USER, SHOP]).take(
        transfer(1, USER, SHOP, 400, kind=PENDING, balancing_debit=True)
    )
    assert [hold.held_minor for hold in decision.holds_opened] == [100]


def test_a_redirected_credit_is_told_in_the_result() -> None:
    shop = replace(SHOP, status=AccountStatus.CREDIT_FROZEN)
    unclaimed = replace(account("unclaimed"), id=unclaimed_account_id(shop))
    books = Decided([USER, shop, unclaimed])
    assert books.result(transfer(1, USER, shop, 5)).redirected_to == unclaimed.id
    assert Decided([USER, SHOP]).result(transfer(1, USER, SHOP, 5)).redirected_to == ""


@pytest.mark.parametrize("movement", ["dispute.open", "bank_return.book", "correction.fix"])
def test_forcing_is_for_some_movements_of_granted_callers(movement: str) -> None:
    order = transfer(1, SHOP, USER, 5, forced=True, movement=movement)
    granted, ungranted = RequestRules(NOW, may_force=True), RequestRules(NOW)
    assert granted.check(order) is None
    assert outcome(Decided([USER, SHOP]).result(order)) == (TransferStatus.BOOKED, 5)
    for refused in (
        ungranted.check(order),
        granted.check(replace(order, movement="order.settle")),
        granted.check(replace(order, balancing_debit=True)),
    ):
        assert refused is not None
        assert (refused.reason, refused.metadata["field"]) == ("FIELD_INVALID", "forced")


@pytest.mark.parametrize("field", ["balancing_debit", "balancing_credit"])
@pytest.mark.parametrize("kind", [TransferKind.POST, TransferKind.VOID])
def test_balancing_a_later_step_is_invalid(kind: TransferKind, field: str) -> None:
    order = transfer(1, SHOP, USER, 0, kind=kind, pending_id=transfer(2, SHOP, USER, 1).id)
    refused = RequestRules(NOW).check(replace(order, **{field: True}))  # type: ignore[arg-type]
    assert refused is not None
    assert refused.metadata["field"] == field
