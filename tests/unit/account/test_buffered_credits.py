"""Decisions on buffered accounts: what is appended, what is posted, what is not available yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.account.domain.accounts import (
    BUFFERED_SUM_MINOR_MAX,
    SUM_MINOR_MAX,
    AccountStatus,
)
from services.account.domain.batches import Decision
from services.account.domain.bookings import unclaimed_account_id
from services.account.domain.transfers import BufferedCredit, TransferKind
from tests.unit.account.decided import Decided, account, transfer

USER, SHOP = account("user", 100), account("shop", is_buffered=True)
PENDING, POST = TransferKind.PENDING, TransferKind.POST


def told(decision: Decision) -> list[tuple[str, int, bool]]:
    return [
        (one.reason or str(one.status), one.booked_minor, one.is_buffered)
        for answer in decision.answers
        for one in answer
    ]


def test_a_single_credit_is_appended_and_leaves_the_account_as_it_is() -> None:
    order = transfer(1, USER, SHOP, 30)
    decision = Decided([USER, SHOP], shared=[SHOP]).take(order)
    assert told(decision) == [("BOOKED", 30, True)]
    assert decision.appended == [BufferedCredit(SHOP.id, order.id, 30)]
    assert [(line.account_id, line.is_debit) for line in decision.entries] == [(USER.id, True)]
    assert [fold.account.id for fold in decision.folds] == [USER.id]
    assert decision.stored[0].credit_version == 0


def test_what_is_appended_cannot_be_moved_out_of_the_same_batch() -> None:
    decision = Decided([USER, SHOP]).take(transfer(1, USER, SHOP, 30), transfer(2, SHOP, USER, 1))
    assert told(decision) == [("BOOKED", 30, True), ("INSUFFICIENT_FUNDS", 0, False)]
    balancing = Decided([USER, replace(SHOP, credits_posted_minor=7)]).take(
        transfer(1, USER, SHOP, 30), transfer(2, SHOP, USER, 100, balancing_debit=True)
    )
    assert told(balancing)[1] == ("BOOKED", 7, False)


def test_holds_and_posts_to_a_buffered_account_are_not_buffered() -> None:
    hold = transfer(1, USER, SHOP, 30, kind=PENDING)
    post = transfer(2, USER, SHOP, 0, kind=POST, pending_id=hold.id)
    decision = Decided([USER, SHOP]).take(hold, post)
    assert told(decision) == [("BOOKED", 30, False)] * 2
    assert decision.appended == []
    assert [line.account_id for line in decision.entries] == [USER.id, SHOP.id]


def test_a_refused_chain_leaves_nothing_in_a_buffer() -> None:
    chain = (transfer(1, USER, SHOP, 30, linked=True), transfer(2, SHOP, USER, 1))
    decision = Decided([USER, SHOP]).take(chain, transfer(3, USER, SHOP, 100))
    assert [one.transfer_id for one in decision.appended] == [transfer(3, USER, SHOP, 1).id]
    assert told(decision)[2] == ("BOOKED", 100, True)
    assert decision.entries[0].debits_posted_minor == 100


def test_a_chain_with_buffered_credits_appends_all_of_them() -> None:
    other = account("other", is_buffered=True)
    chain = (transfer(1, USER, SHOP, 30, linked=True), transfer(2, USER, other, 20))
    decision = Decided([USER, SHOP, other], shared=[SHOP, other]).take(chain)
    assert [one.amount_minor for one in decision.appended] == [30, 20]


@pytest.mark.parametrize(
    ("status", "movement", "expected"),
    [
        (AccountStatus.DEBIT_FROZEN, "test.move", ("BOOKED", 5, True)),
        (AccountStatus.CREDIT_FROZEN, "test.move", ("BOOKED", 5, False)),
        (AccountStatus.CREDIT_FROZEN, "refund.book", ("BOOKED", 5, False)),
        (AccountStatus.CLOSED, "test.move", ("ACCOUNT_CLOSED", 0, False)),
        (AccountStatus.CLOSED, "refund.book", ("BOOKED", 5, False)),
    ],
)
def test_a_shut_buffered_account_is_credited_elsewhere_or_not_at_all(
    status: AccountStatus, movement: str, expected: tuple[str, int, bool]
) -> None:
    shop = replace(SHOP, status=status)
    unclaimed = replace(account("unclaimed"), id=unclaimed_account_id(shop))
    order = transfer(1, USER, shop, 5, movement=movement)
    decision = Decided([USER, shop, unclaimed], shared=[shop]).take(order)
    assert told(decision) == [expected]
    buffered = replace(unclaimed, is_buffered=True)
    [[result]] = Decided([USER, shop, buffered], shared=[shop]).take(order).answers
    assert result.is_buffered == (result.reason == "")


def test_a_repeat_tells_that_the_credit_was_buffered() -> None:
    order = transfer(1, USER, SHOP, 30)
    stored = Decided([USER, SHOP]).take(order).stored[0]
    again = Decided([USER, replace(SHOP, is_buffered=False)], existing={order.id: stored})
    result = again.result(order)
    assert (result.replayed, result.is_buffered, result.booked_minor) == (True, True, 30)


def test_a_buffered_account_leaves_room_for_what_its_writers_do_not_see() -> None:
    rich = account("rich", 10**16)
    nearly = replace(SHOP, credits_posted_minor=BUFFERED_SUM_MINOR_MAX - 50)
    decision = Decided([rich, nearly]).take(
        transfer(1, rich, nearly, 30),
        transfer(2, rich, nearly, 21),
        transfer(3, rich, nearly, 20, kind=PENDING),
        transfer(4, rich, nearly, 1, kind=PENDING),
    )
    assert [one[0].reason for one in decision.answers] == [
        "",
        "BALANCE_OVERFLOW",
        "",
        "BALANCE_OVERFLOW",
    ]
    plain = replace(nearly, is_buffered=False, credits_posted_minor=SUM_MINOR_MAX - 50)
    assert Decided([rich, plain]).result(transfer(1, rich, plain, 50)).reason == ""


def test_changing_an_account_that_is_shared_is_our_fault() -> None:
    with pytest.raises(RuntimeError, match="shares"):
        Decided([USER, SHOP], shared=[SHOP]).take(transfer(1, USER, SHOP, 3, kind=PENDING))
